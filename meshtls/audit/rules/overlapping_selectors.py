"""Two policies with selectors match one workload: the oldest counts whole, port exceptions of the other are lost."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    lost: dict[tuple[str, str], list[str]] = {}
    for w in facts.workloads:
        own = facts.own(w)
        for loser in own[1:]:
            lost.setdefault((own[0].ref, loser.ref), []).append(w.label)
    for (winner, younger), workloads in lost.items():
        yield Flaw(
            subject=younger,
            path=("spec", "selector"),
            message=f"Has no effect on {', '.join(workloads[:3])}: {winner} matches too and wins whole; ports are not merged.",
            because=("of several policies whose selector matches a pod only the oldest counts (by creationTimestamp, then name)",),
            fix=f"Write one policy for each workload: move the modes of {younger} into {winner}, then delete {younger}.",
        )


RULE = Rule(code="MT103", title="Several policies with selectors match one workload", severity=Severity.WARNING,
            catalogue=("PA-03", "PA-04"), about=("PeerAuthentication",), needs=("Pod",), find=find)

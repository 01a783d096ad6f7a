"""Two policies without selector in one namespace: the oldest wins whole, the others do nothing.

Order of age: creationTimestamp (whole seconds), then name. Manifests carry no age, so there the winner is unknown. Deleting
and creating the winner again makes it the youngest: another policy takes over. Ambient knows no tie-break by name.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for namespace, policies in facts.policies.items():
        for wide in _rivals([p for p in policies if not selective(p)]):
            yield from _losers(namespace, wide)


def _rivals(wide: list[o.PeerAuthentication]) -> Iterator[list[o.PeerAuthentication]]:
    """Groups that one istiod reads together: those without a revision, with those of each revision that is named."""
    revisions = sorted({r for p in wide if (r := p.labels.get("istio.io/rev"))}) or [""]
    for revision in revisions:
        group = [p for p in wide if p.labels.get("istio.io/rev", revision) == revision]
        if len(group) > 1:
            yield group


def _losers(namespace: str, wide: list[o.PeerAuthentication]) -> Iterator[Flaw]:
    winner = wide[0]
    ages = {p.metadata.creation_timestamp or "" for p in wide}
    known = "" not in ages
    tied = known and len(ages) < len(wide)
    for loser in wide[1:]:
        if known:
            message = f"Has no effect: {winner.ref} ({mode(winner)}) is older and wins in all of {namespace}."
        else:
            message = f"Competes with {winner.ref}: only the oldest of them counts, and the input does not say which that is."
        because = ["of several policies without selector in a namespace the oldest counts; they are never merged",
                   "deleting and creating the winner again would make another one win: change it in place"]
        if tied:
            because.append("two of them have the same creationTimestamp; sidecars go by name then, ambient does not")
        yield Flaw(
            subject=loser.ref, message=message, because=tuple(because),
            catalogue=("PA-02", "PA-04", *(() if known else ("PA-05",)), *(("AM-04",) if tied else ())),
            fix=f"Keep one policy for the namespace:\n  kubectl -n {namespace} delete peerauthentication {loser.name}",
        )


RULE = Rule(code="MT102", title="Several policies without selector compete in one namespace", severity=Severity.WARNING,
            catalogue=("PA-02", "PA-04", "PA-05", "AM-04"), about=("PeerAuthentication",), find=find)

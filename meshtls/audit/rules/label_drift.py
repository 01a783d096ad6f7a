"""Running pods and their template carry other labels, so that other policies match after the next restart."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.select import subset as matches


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if not w.pods or w.template is None:
            continue
        declared = w.template.metadata.labels
        for policy in facts.policies.get(w.namespace, ()):
            if not selective(policy):
                continue
            wanted = policy.spec.selector.match_labels  # type: ignore[union-attr]
            by_template = matches(wanted, declared)
            drifted = [face for face in facts.faces(w) if matches(wanted, face.metadata.labels) != by_template]
            if drifted:
                now, then = ("does not match", "will") if by_template else ("matches", "will not")
                yield Flaw(
                    subject=w.ref,
                    message=f"{policy.ref} {now} the running pod {drifted[0].name}, and {then} match after a restart: labels differ.",
                    because=(f"the policy selects {', '.join(f'{k}={v}' for k, v in wanted.items())}",
                             "labels of running pods were changed, or the template was and no rollout followed"),
                    fix=f"Make pods and template agree:\n  kubectl -n {w.namespace} rollout restart {w.kind.lower()}/{w.name}",
                )
                break


RULE = Rule(code="MT110", title="Pods and their template match different policies", severity=Severity.WARNING,
            catalogue=("PA-13",), about=("PeerAuthentication",), needs=("Pod",), find=find)

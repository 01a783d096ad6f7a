"""A policy labelled `istio.io/rev` is read by that revision only; the name of a tag matches none."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

LABEL = "istio.io/rev"


def find(facts: Facts) -> Iterator[Flaw]:
    mesh = facts.mesh
    for policy in mesh.peer_authentications:
        revision = policy.labels.get(LABEL)
        if revision is None:
            continue
        known = sorted(mesh.configs)
        detail = f"; the input has revision {', '.join(known)}" if known else ""
        yield Flaw(
            subject=policy.ref,
            path=("metadata", "labels", LABEL),
            message=f"Only istiod of revision {revision} reads this policy: proxies of every other revision ignore it{detail}.",
            because=("the label must equal the revision; the name of a revision tag matches no istiod",),
            fix=f"  kubectl -n {policy.namespace} label peerauthentication {policy.name} {LABEL}-",
        )


RULE = Rule(code="MT111", title="A policy belongs to one revision only", severity=Severity.WARNING,
            catalogue=("PA-14",), about=("PeerAuthentication",), find=find)

"""A PeerAuthentication that GitOps owns goes back to what Git says within minutes: STRICT and rollback alike.

Where the object itself says that it is left alone, nothing is found. Whether the owner is paused elsewhere (suspend, sync
policy) is not in the objects that are read. The labels of a namespace that GitOps owns are mentioned: they decide injection.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode
from meshtls.policy.ownership import owned_by


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        owner, how = owned_by(policy.labels, policy.annotations)
        if owner:
            strict = mode(policy) == "STRICT"
            yield Flaw(
                subject=policy.ref,
                path=("metadata",),
                severity=Severity.WARNING if strict else None,
                message=f"{owner} owns this policy: a change in the cluster is taken back within minutes, "
                        + ("the rollback from STRICT too." if strict else "STRICT and its rollback alike."),
                because=(how,),
                fix="Change it in Git, or pause the owner for the time of the migration.",
            )
    for namespace in facts.mesh.namespaces:
        owner, how = owned_by(namespace.labels, namespace.annotations)
        if owner and namespace.name in facts.meshed_namespaces:
            yield Flaw(
                subject=namespace.ref,
                path=("metadata", "labels"),
                severity=Severity.INFO,
                message=f"{owner} owns this namespace: a change of its labels, which decide injection, is taken back within minutes.",
                because=(how,),
            )


RULE = Rule(code="MT134", title="GitOps would take a change back", severity=Severity.ERROR,
            catalogue=("RB-06",), about=("PeerAuthentication",), reads=("Namespace", "Pod"), find=find)

"""A namespace's PERMISSIVE or DISABLE counts more than a STRICT mesh: the mesh's mode is no floor."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    root = facts.wide(facts.mesh.root)
    if root is None or mode(root) != "STRICT":
        return
    for namespace in facts.policies:
        policy = facts.wide(namespace)
        if policy is not None and policy is not root and mode(policy) in ("PERMISSIVE", "DISABLE"):
            yield Flaw(
                subject=policy.ref,
                path=("spec", "mtls", "mode"),
                message=f"Namespace {namespace} is {mode(policy)} although the mesh is STRICT: a namespace's policy counts more.",
                because=(f"{root.ref} says STRICT", f"{policy.ref} says {mode(policy)}, and it is the narrower one"),
                fix=f"When its clients are ready:\n  meshtls migrate plan -n {namespace}",
            )


RULE = Rule(code="MT107", title="A namespace is weaker than the mesh", severity=Severity.WARNING,
            catalogue=("PA-11",), about=("PeerAuthentication",), find=find)

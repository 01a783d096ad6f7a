"""A policy without a mode inherits; it does not mean PERMISSIVE, and neither does it mean STRICT."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in filter(None, map(facts.wide, facts.policies)):
        if mode(policy) == "UNSET" and not selective(policy):
            at_root = policy.namespace == facts.mesh.root
            now = "PERMISSIVE" if at_root else facts.namespace_mode(policy.namespace)
            yield Flaw(
                subject=policy.ref,
                path=("spec", "mtls"),
                message=f"Sets no mode: {'the mesh' if at_root else policy.namespace} is {now} by inheritance.",
                because=("an absent mtls, an empty one and UNSET inherit from the namespace, then the mesh, then PERMISSIVE",),
                fix=f"Say what is meant:\nspec:\n  mtls:\n    mode: {now}",
            )


RULE = Rule(code="MT109", title="A policy sets no mode", severity=Severity.INFO,
            catalogue=("PA-09",), about=("PeerAuthentication",), find=find)

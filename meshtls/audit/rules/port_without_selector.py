"""`portLevelMtls` without selector: the resource definition refuses it; where it slipped in, it is ignored."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        if policy.spec.port_level_mtls and not selective(policy):
            ports = ", ".join(policy.spec.port_level_mtls)
            yield Flaw(
                subject=policy.ref,
                path=("spec", "portLevelMtls"),
                message=f"The modes for port {ports} are refused by the API server, or ignored: the policy has no selector.",
                because=("the resource definition says: portLevelMtls requires selector",),
                fix="Add a selector that names the workload:\nspec:\n  selector:\n    matchLabels:\n      app: WORKLOAD",
            )


RULE = Rule(code="MT105", title="Port modes in a policy without selector", severity=Severity.WARNING,
            catalogue=("PA-07",), about=("PeerAuthentication",), find=find)

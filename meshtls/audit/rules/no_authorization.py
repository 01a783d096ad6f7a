"""STRICT authenticates and does not authorize: any workload of the mesh may call."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    guarded = {p.namespace for p in facts.mesh.authorization_policies}
    if facts.mesh.root in guarded:
        return
    for namespace in sorted(facts.meshed_namespaces - guarded):
        if facts.namespace_mode(namespace) == "STRICT":
            yield Flaw(
                subject=f"Namespace/{namespace}",
                message=f"{namespace} is STRICT and has no AuthorizationPolicy: any workload with a certificate of the mesh may call it.",
                because=("STRICT proves who calls; only an AuthorizationPolicy says who may",),
                fix="Write one that names the callers (spec.rules[].from[].source.principals).",
            )


RULE = Rule(code="MT130", title="STRICT without authorization", severity=Severity.INFO,
            catalogue=("SE-04",), about=("PeerAuthentication",), needs=("AuthorizationPolicy", "Pod", "Namespace"), find=find)

"""A BackendTLSPolicy for a Service in the mesh makes clients bring TLS of their own, as DestinationRule SIMPLE does."""

from collections.abc import Iterator

from meshtls.audit.destinations import refusing
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.backend_tls_policies:
        for index, target in enumerate(policy.spec.target_refs):
            service = facts.mesh.services_by_name.get((policy.namespace, target.name)) if target.kind == "Service" else None
            named = [p.port for p in service.spec.ports if p.name == target.section_name] if service and target.section_name else [0]
            hits = [hit for port in named for hit in refusing(facts, service, port)] if service else []
            if service and hits:
                yield Flaw(
                    subject=policy.ref,
                    path=("spec", "targetRefs", str(index)),
                    message=f"Gateways and meshed clients bring TLS without the mesh's certificate to {service.ref}: STRICT on {hits[0][0].label} refuses it.",
                    because=("istiod compiles a BackendTLSPolicy to a DestinationRule with tls SIMPLE",),
                    fix=f"Delete it; mTLS of the mesh takes its place:\n  kubectl -n {policy.namespace} delete backendtlspolicy {policy.name}",
                )


RULE = Rule(code="MT208", title="A BackendTLSPolicy brings foreign TLS to a workload in the mesh", severity=Severity.ERROR,
            catalogue=("DR-11",), about=("BackendTLSPolicy",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

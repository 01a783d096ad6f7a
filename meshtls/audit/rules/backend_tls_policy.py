"""A BackendTLSPolicy for a Service in the mesh makes clients bring TLS of their own, as DestinationRule SIMPLE does.

Where a DestinationRule of the mesh says otherwise for the host, that one wins. A policy that is ignored is told of in MT209.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import refusing
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.backend_tls import INVALID, credential


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.backend_tls_policies:
        for index, target in enumerate(policy.spec.target_refs):
            service = facts.mesh.services_by_name.get((policy.namespace, target.name)) if target.kind == "Service" else None
            if service is None:
                continue
            named = [p.port for p in service.spec.ports if p.name == target.section_name] if target.section_name else [0]
            hits = [hit for port in named if _counts(facts, policy, service, port) for hit in refusing(facts, service, port)]
            if not hits:
                continue
            brings = "Gateways and meshed clients bring TLS without the mesh's certificate"
            if credential(policy) == INVALID:
                brings = "Meshed clients send plaintext, since the policy's CA cannot be used,"
            yield Flaw(
                subject=policy.ref,
                path=("spec", "targetRefs", str(index)),
                message=f"{brings} to {service.ref}: STRICT on {hits[0][0].label} refuses it.",
                because=("istiod compiles a BackendTLSPolicy to a DestinationRule with tls SIMPLE",),
                fix=f"Delete it; mTLS of the mesh takes its place:\n  kubectl -n {policy.namespace} delete backendtlspolicy {policy.name}",
            )


def _counts(facts: Facts, policy: o.BackendTLSPolicy, service: o.Service, port: int) -> bool:
    """Is there a namespace whose clients would use it, if they called the Service?"""
    host = f"{service.name}.{service.namespace}.svc.cluster.local"
    rules = facts.engine.control("").rules
    found = (rules.find(ns, {}, host, service.namespace) for ns in dict.fromkeys((service.namespace, *facts.workloads_in)))
    return any(rule is not None and rule.backend.get(port) == policy.ref for rule in found)


RULE = Rule(code="MT208", title="A BackendTLSPolicy brings foreign TLS to a workload in the mesh", severity=Severity.ERROR,
            catalogue=("DR-11",), about=("BackendTLSPolicy",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"),
            reads=("DestinationRule",), find=find)

"""The application has TLS of its own: clients outside the mesh reach it under PERMISSIVE, and meet the mesh's certificate
under STRICT. Clients in the mesh are fine: their TLS travels inside mTLS. Where the input shows no workload outside the mesh
that could be such a client, it is only mentioned.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.service import AUTO, protocol_of

TLS_PORTS = (443, 6443, 8443, 9443)


def find(facts: Facts) -> Iterator[Flaw]:
    exposed = {w.ref for s in facts.mesh.services if s.spec.type in ("LoadBalancer", "NodePort") or s.spec.external_ips for w in facts.behind(s)}
    outside = bool(facts.lone)
    called = _called(facts)
    for w in facts.sidecars:
        for port, (name, app) in facts.ports(w).items():
            kind = protocol_of(o.ServicePort(name=name, app_protocol=app, port=port))
            if kind not in ("HTTPS", "TLS") and not (kind == AUTO and port in TLS_PORTS):
                continue
            if not facts.refuses(w, port) or (w.ref, port) in called:
                continue
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "containers", "ports", str(port)),
                severity=Severity.ERROR if w.ref in exposed else None if outside else Severity.INFO,
                message=f"Port {port} of {w.label} has TLS of its own: clients outside the mesh get the mesh's certificate instead of it under STRICT, and are refused.",
                because=(f"the port is named {name or port}" if kind != AUTO else f"{port} is a usual TLS port",
                         "under PERMISSIVE such TLS passes through to the application"),
                fix="If clients outside the mesh use it:\n" + say.exception(facts, w, [port]),
            )


def _called(facts: Facts) -> set[tuple[str, int]]:
    """(workload, port) that the API server calls: other rules speak of those."""
    named = [h.client_config.service for x in facts.webhooks for h in x.webhooks]
    named += [c.spec.conversion.webhook.client_config.service for c in facts.mesh.crds if c.spec.conversion and c.spec.conversion.webhook]
    named += [a.spec.service for a in facts.mesh.api_services]
    found = set()
    for reference in filter(None, named):
        service = facts.mesh.services_by_name.get((reference.namespace, reference.name))
        for w in facts.behind(service) if service else ():
            found |= {(w.ref, facts.target(p, w)) for p in service.spec.ports if p.port == (reference.port or 443)}  # type: ignore[union-attr]
    return found


RULE = Rule(code="MT271", title="An application's own TLS is cut off from clients outside the mesh", severity=Severity.WARNING,
            catalogue=("TL-01",), about=WORKLOADS, needs=("Service", "PeerAuthentication", "Namespace"),
            reads=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService", "CustomResourceDefinition"), find=find)

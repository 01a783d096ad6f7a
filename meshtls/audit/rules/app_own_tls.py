"""The application has TLS of its own: clients outside the mesh reach it under PERMISSIVE, and meet the mesh's certificate
under STRICT. Clients in the mesh are fine: their TLS travels inside mTLS.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.registry import AUTO, protocol_of

TLS_PORTS = (443, 6443, 8443, 9443)


def find(facts: Facts) -> Iterator[Flaw]:
    exposed = {w.ref for s in facts.mesh.services if s.spec.type in ("LoadBalancer", "NodePort") for w in facts.behind(s)}
    called = {(c.service.namespace, c.service.name) for x in facts.webhooks for h in x.webhooks if (c := h.client_config).service}
    for w in facts.sidecars:
        if any((s.namespace, s.name) in called for s in facts.services_of.get(w.ref, ())):
            continue
        for port, (name, app) in facts.ports(w).items():
            kind = protocol_of(o.ServicePort(name=name, app_protocol=app, port=port))
            if kind not in ("HTTPS", "TLS") and not (kind == AUTO and port in TLS_PORTS):
                continue
            if not facts.refuses(w, port):
                continue
            yield Flaw(
                subject=w.ref,
                path=("spec", "template", "spec", "containers"),
                severity=Severity.ERROR if w.ref in exposed else None,
                message=f"Port {port} of {w.label} has TLS of its own: clients outside the mesh get the mesh's certificate instead of it under STRICT, and are refused.",
                because=(f"the port is named {name or port}" if kind != AUTO else f"{port} is a usual TLS port",
                         "under PERMISSIVE such TLS passes through to the application"),
                fix="If clients outside the mesh use it:\n" + say.exception(w, facts.face(w).metadata.labels, [port]),
            )


RULE = Rule(code="MT271", title="An application's own TLS is cut off from clients outside the mesh", severity=Severity.WARNING,
            catalogue=("TL-01",), about=WORKLOADS, needs=("Service", "PeerAuthentication", "Namespace"), find=find)

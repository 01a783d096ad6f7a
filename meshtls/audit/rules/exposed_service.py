"""Clients from outside the cluster go straight to a workload of the mesh (LoadBalancer, NodePort, externalIPs)."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.destinations import refusing
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        spec = service.spec
        if spec.type not in ("LoadBalancer", "NodePort") and not spec.external_ips:
            continue
        hits = refusing(facts, service)
        if hits:
            w, _ = hits[0]
            how = spec.type if spec.type != "ClusterIP" else "externalIPs"
            yield Flaw(
                subject=service.ref,
                catalogue=("LB-01", "KP-05", *(("AM-14",) if facts.plane(w) == "ambient" else ())),
                path=("spec", "type") if how != "externalIPs" else ("spec", "externalIPs"),
                message=f"Clients from outside reach {w.label} through {how}: STRICT refuses them, and health checks of a load balancer too.",
                because=("a client outside the mesh has no certificate of it", "a TCP health check still passes, since the proxy accepts the connection"),
                fix="Put it behind a gateway of the mesh, or keep the port open and guard it with an AuthorizationPolicy:\n"
                    + say.exception(facts, w, {p for x, p in hits if x is w}),
            )


RULE = Rule(code="MT260", title="A workload of the mesh is exposed to clients outside", severity=Severity.WARNING,
            catalogue=("LB-01", "KP-05", "AM-14"), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"), find=find)

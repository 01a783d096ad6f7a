"""A client that speaks TLS itself with a certificate of the mesh (Prometheus does): STRICT lets it in, PERMISSIVE does not.

Under PERMISSIVE a connection without Istio's ALPN is not taken for mTLS, so a rollback breaks such a client.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.objects import MonitorEndpoint, Object


def find(facts: Facts) -> Iterator[Flaw]:
    monitors: list[tuple[Object, str, tuple[MonitorEndpoint, ...]]] = [
        *((m, "endpoints", m.spec.endpoints) for m in facts.mesh.service_monitors),
        *((m, "podMetricsEndpoints", m.spec.pod_metrics_endpoints) for m in facts.mesh.pod_monitors),
    ]
    for monitor, field, endpoints in monitors:
        for index, endpoint in enumerate(endpoints):
            tls = endpoint.tls_config or {}
            cert = str(tls.get("certFile", ""))
            if endpoint.scheme == "https" and ("istio" in cert or "prom-certs" in cert):
                yield Flaw(
                    subject=monitor.ref,
                    path=("spec", field, str(index), "tlsConfig"),
                    message="Scrapes with a certificate of the mesh: it works only while the port is STRICT, so that a rollback to PERMISSIVE breaks it.",
                    because=("under PERMISSIVE TLS without Istio's ALPN is no mTLS: refused on http ports, passed raw to the application on others",),
                    fix="Keep the scraped port STRICT by a policy with a selector and portLevelMtls before and after the switch.",
                )


RULE = Rule(code="MT223", title="A client brings the mesh's certificate by itself", severity=Severity.WARNING,
            catalogue=("CL-15", "RB-09"), about=("ServiceMonitor", "PodMonitor"), find=find)

"""A metrics port that is scraped by pod address: from outside the mesh, STRICT refuses it and alerts fall silent.

Named by a ServiceMonitor or PodMonitor, by the annotation `prometheus.io/port`, or by the name of the port. Merged metrics
(15020) go on working: the injector points `prometheus.io/*` there unless merging is off.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload
from meshtls.policy.select import matches as chosen

OWN = ("15020", "15090")


def find(facts: Facts) -> Iterator[Flaw]:
    monitored = _monitored(facts)
    for w in facts.in_mesh:
        said: dict[int, str] = {}
        for port, monitor in monitored.get(w.ref, ()):
            said.setdefault(port, monitor)
        notes = facts.face(w).metadata.annotations
        annotated = notes.get("prometheus.io/port", "")
        unmerged = notes.get("prometheus.istio.io/merge-metrics") == "false" or facts.plane(w) == "ambient"
        if notes.get("prometheus.io/scrape") == "true" and annotated.isdigit() and annotated not in OWN and (unmerged or w.pods):
            said.setdefault(int(annotated), "annotation prometheus.io/port")
        for port, (name, _) in facts.ports(w).items():
            if ("metrics" in name or "prom" in name) and not {"metrics", "prometheus", "prom"}.isdisjoint(name.split("-")):
                said.setdefault(port, f"port name {name}")
        lost = {port: why for port, why in said.items() if facts.refuses(w, port)}
        if lost:
            ports = sorted(lost)
            yield Flaw(
                subject=w.ref,
                message=f"Metrics of {w.label} on port {', '.join(map(str, ports))} are scraped by pod address: refused under STRICT unless the scraper brings the mesh's certificate. "
                        "Targets go down and alerts on them fall silent.",
                because=tuple(f"port {port}: {why}" for port, why in sorted(lost.items())) + ("a call to a pod's address is plaintext, from a meshed scraper too",),
                fix="Keep the metrics port open:\n" + say.exception(w, facts.face(w).metadata.labels, ports),
            )


def _monitored(facts: Facts) -> dict[str, list[tuple[int, str]]]:
    """Workload ref -> (port, monitor) that scrape it."""
    found: dict[str, list[tuple[int, str]]] = {}
    for monitor in facts.mesh.service_monitors:
        for namespace in _namespaces(facts, monitor.spec.namespace_selector, monitor):
            for service in facts.mesh.services_in.get(namespace, ()):
                if chosen(monitor.spec.selector, service.labels):
                    for endpoint in monitor.spec.endpoints:
                        for port in service.spec.ports:
                            if endpoint.port and endpoint.port == port.name and "istio" not in str((endpoint.tls_config or {}).get("certFile", "")):
                                for w in facts.behind(service):
                                    found.setdefault(w.ref, []).append((facts.target(port, w), monitor.ref))
    for pods in facts.mesh.pod_monitors:
        for namespace in _namespaces(facts, pods.spec.namespace_selector, pods):
            for w in facts.workloads_in.get(namespace, ()):
                if chosen(pods.spec.selector, facts.face(w).metadata.labels):
                    for endpoint in pods.spec.pod_metrics_endpoints:
                        number = endpoint.port_number or next((n for n, (name, _) in _containers(facts, w).items() if name == endpoint.port), 0)
                        if number and str(number) not in OWN:
                            found.setdefault(w.ref, []).append((number, pods.ref))
    return {ref: [(p, m) for p, m in entries if p] for ref, entries in found.items()}


def _containers(facts: Facts, w: Workload) -> dict[int, tuple[str, str]]:
    return {p.container_port: (p.name, "") for c in facts.face(w).spec.containers if c.name != "istio-proxy" for p in c.ports}


def _namespaces(facts: Facts, selector: o.MonitorNamespaces, monitor: o.Object) -> list[str]:
    if selector.any:
        return list(facts.workloads_in)
    return list(selector.match_names) or [monitor.namespace]


RULE = Rule(code="MT250", title="Metrics are scraped in plaintext", severity=Severity.WARNING,
            catalogue=("NC-05", "NC-04", "CL-07"), about=WORKLOADS, needs=("Service", "PeerAuthentication", "Namespace"), find=find)

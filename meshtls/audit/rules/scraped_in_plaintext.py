"""A metrics port that is scraped by pod address: from outside the mesh, STRICT refuses it and alerts fall silent.

Named by a ServiceMonitor or PodMonitor, or by the annotation `prometheus.io/port`. A port that is only called metrics is less
certain, and only mentioned where the input shows no workload outside the mesh that might scrape it. Merged metrics (15020) go on working: the injector points `prometheus.io/*` there unless merging is off.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, application, number, port_of
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity
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
        if notes.get("prometheus.io/scrape") == "true" and annotated not in OWN and (port := number(annotated)) and (unmerged or w.pods):
            said.setdefault(port, "annotation prometheus.io/port")
        named = {port: f"port name {name}" for port, (name, _) in facts.ports(w).items()
                 if not {"metrics", "prometheus", "prom"}.isdisjoint(name.split("-"))}
        lost = {port: why for port, why in (said or named).items() if facts.refuses(w, port)}
        if lost:
            ports = sorted(lost)
            yield Flaw(
                subject=w.ref,
                severity=None if said or facts.lone else Severity.INFO,
                confidence=None if said else Confidence.INFERRED,
                message=f"Metrics of {w.label} on port {', '.join(map(str, ports))} {'are' if said else 'may be'} scraped by pod address: refused under STRICT "
                        "unless the scraper brings the mesh's certificate. Targets go down and alerts on them fall silent.",
                because=tuple(f"port {port}: {why}" for port, why in sorted(lost.items())) + ("a call to a pod's address is plaintext, from a meshed scraper too",),
                catalogue=("NC-05", "CL-07", *(("NC-04",) if w.kind == "DaemonSet" else ())),
                fix="Keep the metrics port open:\n" + say.exception(facts, w, ports),
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
                            if endpoint.port and endpoint.port == port.name and not _meshed(endpoint):
                                for w in facts.behind(service):
                                    found.setdefault(w.ref, []).append((facts.target(port, w), monitor.ref))
                        if endpoint.target_port and not endpoint.port and not _meshed(endpoint):
                            for w in facts.behind(service):
                                found.setdefault(w.ref, []).append((_own_port(facts, w, endpoint.target_port), monitor.ref))
    for pods in facts.mesh.pod_monitors:
        for namespace in _namespaces(facts, pods.spec.namespace_selector, pods):
            for w in facts.workloads_in.get(namespace, ()):
                if chosen(pods.spec.selector, facts.face(w).metadata.labels):
                    for endpoint in pods.spec.pod_metrics_endpoints:
                        own = endpoint.port_number or _own_port(facts, w, endpoint.port or endpoint.target_port or 0)
                        if own and str(own) not in OWN and not _meshed(endpoint):
                            found.setdefault(w.ref, []).append((own, pods.ref))
    return {ref: [(p, m) for p, m in entries if p] for ref, entries in found.items()}


def _meshed(endpoint: o.MonitorEndpoint) -> bool:
    """Does the scraper bring the mesh's certificate?"""
    cert = str((endpoint.tls_config or {}).get("certFile", ""))
    return "istio" in cert or "prom-certs" in cert


def _own_port(facts: Facts, w: Workload, wanted: int | str) -> int:
    """The number of a port of the pod's containers, by name or number; 0 for none."""
    return next((port for c in application(facts.face(w)) if (port := port_of(wanted, c))), 0)


def _namespaces(facts: Facts, selector: o.MonitorNamespaces, monitor: o.Object) -> list[str]:
    if selector.any:
        return list(facts.workloads_in)
    return list(selector.match_names) or [monitor.namespace]


RULE = Rule(code="MT250", title="Metrics are scraped in plaintext", severity=Severity.WARNING,
            catalogue=("NC-05", "NC-04", "CL-07"), about=WORKLOADS, needs=("Service", "PeerAuthentication", "Namespace"), reads=("ServiceMonitor", "PodMonitor"), find=find)

"""What answers for a service: addresses of EndpointSlices, and those that ServiceEntries and WorkloadEntries write
(pilot/pkg/serviceregistry kube endpointslice.go, serviceentry conversion.go).

An address without reference to a pod is a ready pod of the slice's own namespace, or nobody's. A Service with a
cluster IP selects WorkloadEntries as it selects pods.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import Endpoint, Obj, Port, Service, at, is_ready, labels, name_of, namespace_of, pod_ip, spec

if TYPE_CHECKING:
    from meshtls.lab.istio.world import World


def of_service(world: "World", service: Service, number: int) -> Iterable[Endpoint]:
    """The endpoints of a Kubernetes Service's port."""
    port = service.port(number)
    if port is None:
        return
    for obj in world.slices.get((service.namespace, name_of(service.source)), ()):
        numbers = [p["port"] for p in obj.get("ports") or [] if (p.get("name") or "") == port.name]
        for endpoint in obj.get("endpoints") or []:
            ready = at(endpoint, "conditions", "ready") is not False
            ref = endpoint.get("targetRef") or {}
            named = ref.get("kind") == "Pod"
            for address in endpoint["addresses"][:1]:
                key = ref.get("namespace", service.namespace), ref.get("name", "")
                pod = world.pods_by_name.get(key) if named else _pod_at(world, address, service.namespace)
                if pod is not None or not named:
                    yield from (_pod(world, address, n, pod, service.namespace, ready) for n in numbers)
    if service.selector and service.resolution == "EDS":
        yield from _machines(world, service, port)


def _machines(world: "World", service: Service, port: Port) -> Iterable[Endpoint]:
    """The WorkloadEntries that a Kubernetes Service selects (serviceInstanceFromWorkloadInstance)."""
    declared = next(p for p in spec(service.source)["ports"] if p["port"] == port.number)
    target = declared.get("targetPort") or port.number
    for machine in _picked(world, service):
        number = at(machine, "ports", target if isinstance(target, str) else port.name) or target
        if isinstance(number, int):
            yield _machine(world, machine, number, service.namespace)


def _picked(world: "World", service: Service) -> list[Obj]:
    """The specs of the WorkloadEntries that a service's selector fits; labels of their metadata come first."""
    entries = [e for e in world.kind("WorkloadEntry") if namespace_of(e) == service.namespace]
    found = [spec(e) | {"labels": {**(spec(e).get("labels") or {}), **labels(e)}} for e in entries]
    return [e for e in found if hosts.labels_match(service.selector, e["labels"])]


def _machine(world: "World", entry: Obj, number: int, namespace: str) -> Endpoint:
    marks, account = entry.get("labels") or {}, entry.get("serviceAccount") or ""
    mode = marks.get("security.istio.io/tlsMode", "istio" if account else "disabled")
    identity = world.identity(namespace, account) if account else ""
    return Endpoint(entry["address"], number, marks, namespace, identity, mode)


def _pod_at(world: "World", address: str, namespace: str) -> Obj | None:
    """The pod that an endpoint without targetRef means: only ready ones of the slice's own namespace are known by
    their address."""
    pod = world.pods_by_ip.get(address)
    return pod if pod is not None and namespace_of(pod) == namespace and is_ready(pod) else None


def _pod(world: "World", address: str, number: int, pod: Obj | None, home: str, ready: bool = True) -> Endpoint:
    if pod is None:
        return Endpoint(address, number, {}, home, "", "disabled", ready)
    mode = labels(pod).get("security.istio.io/tlsMode", "disabled")
    return Endpoint(address, number, labels(pod), namespace_of(pod), world.account(pod), mode, ready)


def of_entry(world: "World", service: Service, number: int) -> Iterable[Endpoint]:
    """Endpoints of a ServiceEntry: written in it, or workload entries and pods that its selector picks."""
    body = spec(service.source)
    port = next(p for p in body["ports"] if p["number"] == number)
    fallback = port.get("targetPort") or number
    entries = list(body.get("endpoints") or [])
    if service.selector:
        entries += _picked(world, service)
        for pod in world.pods_by_ip.values():
            if namespace_of(pod) == service.namespace and hosts.labels_match(service.selector, labels(pod)):
                yield _pod(world, pod_ip(pod), fallback, pod, service.namespace)
    elif not entries and service.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        yield Endpoint(service.hostname, fallback, {}, service.namespace, "", "disabled")
    for entry in entries:
        target = at(entry, "ports", port.get("name")) or fallback
        yield _machine(world, entry, int(target), service.namespace)

"""The services that a control plane knows: hosts, ports with their protocol, visibility, and endpoints.

1. A Service is `name.namespace.svc.cluster.local`; a ServiceEntry is each of its hosts at each of its addresses.
2. The protocol of a port is its appProtocol, else the first part of its name, else TCP on 25, 53, 3306, 27017, else detected
   from the first bytes (kube.ConvertProtocol).
3. A Service without cluster IP, and a ServiceEntry with resolution NONE, is passed through to the address that was called.
4. An endpoint speaks mTLS when its pod's label `security.istio.io/tlsMode` is `istio`; a pod that is only addressed, not
   referred to, is found in the Service's namespace alone.
5. Where the input has no EndpointSlice of a Service, its endpoints are the pods, or the pods to be, that it selects.
"""

from collections.abc import Callable, Iterable
from functools import cached_property

import msgspec

from meshtls.model.config import MeshConfig
from meshtls.model.mesh import Mesh, by_namespace, pod_addresses
from meshtls.model.objects import Pod, Service, ServiceEntry, ServicePort, WorkloadEntrySpec
from meshtls.policy.select import subset

ANY = "0.0.0.0"
TLS_MODE = "security.istio.io/tlsMode"
HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-Web", "HTTP_PROXY"})
TCP = frozenset({"TCP", "HTTPS", "TLS", "Mongo", "Redis", "MySQL"})
TLS = frozenset({"HTTPS", "TLS"})
AUTO, UDP = "AUTO", "UDP"
_BY_NAME = {
    **{name.lower(): name for name in (*HTTP, *TCP)},
    "udp": UDP,
}
_TCP_BY_PORT = frozenset({25, 53, 3306, 27017})
_APP_PROTOCOLS = {"kubernetes.io/h2c": "HTTP2", "kubernetes.io/ws": "HTTP", "kubernetes.io/wss": "HTTPS"}

EDS, PASSTHROUGH, DNS, DYNAMIC_DNS, ALIAS = "EDS", "PASSTHROUGH", "DNS", "DYNAMIC_DNS", "ALIAS"
_RESOLUTION = {"NONE": PASSTHROUGH, "STATIC": EDS, "DNS": DNS, "DNS_ROUND_ROBIN": DNS, "DYNAMIC_DNS": DYNAMIC_DNS}


class Port(msgspec.Struct, frozen=True, gc=False):
    """`protocol` is Istio's; `tcp` is whether the transport is TCP: a TCP port named `udp-x` is UDP to Istio alone."""

    name: str
    number: int
    protocol: str
    tcp: bool = True


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """`tls_mode` is the label as istiod reads it; `pod` is what really answers at the address (None: unknown).

    `going`: terminating; proxies do not balance to it any more, whoever has its address still reaches it.
    """

    address: str
    port: int
    service_port: str
    labels: dict[str, str]
    namespace: str
    tls_mode: str
    pod: Pod | None
    going: bool = False


class Host(msgspec.Struct, frozen=True, gc=False):
    """A service as istiod models it. `ref` names the object it comes from; `address` is 0.0.0.0 where it has none."""

    hostname: str
    namespace: str
    name: str
    ref: str
    created: str
    kubernetes: bool
    resolution: str
    external: bool
    address: str
    ports: tuple[Port, ...]
    export_to: tuple[str, ...]
    selector: dict[str, str]
    alias_of: str = ""

    def port(self, number: int) -> Port | None:
        return next((p for p in self.ports if p.number == number), None)


def parse_protocol(name: str) -> str:
    """Protocol of a ServiceEntry's or Sidecar's port."""
    return _BY_NAME.get(name.lower(), AUTO)


def protocol_of(port: ServicePort) -> str:
    """Protocol of a Service's port."""
    if port.protocol == UDP:
        return UDP
    name = port.name
    if port.app_protocol:
        if port.app_protocol in _APP_PROTOCOLS:
            return _APP_PROTOCOLS[port.app_protocol]
        name = port.app_protocol
    if name[:8].lower() == "grpc-web":
        return "GRPC-Web"
    found = _BY_NAME.get(name.partition("-")[0].lower(), AUTO)
    return "TCP" if found == AUTO and port.port in _TCP_BY_PORT else found


def target_port(pod: Pod, port: ServicePort) -> int | None:
    """The port of the pod behind a Service's port; a name that no container has is None (controller.FindPort)."""
    target = port.target_port
    if target is None or target == "":
        return port.port
    if isinstance(target, int):
        return target or port.port
    if target.isdigit():
        return int(target)
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers if c.restart_policy == "Always")]
    for container in containers:
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return None


def _exports(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def host_of(service: Service) -> Host:
    spec, meta = service.spec, service.metadata
    external = spec.type == "ExternalName" and bool(spec.external_name)
    resolution = ALIAS if external else EDS
    address = ANY
    if spec.cluster_ip == "None":
        resolution = PASSTHROUGH
    elif spec.cluster_ip:
        address = spec.cluster_ip
    elif not external:
        address = f"{meta.name}.{meta.namespace}"  # a manifest without address gets one; its own is what matters
    return Host(
        hostname=f"{meta.name}.{meta.namespace}.svc.cluster.local",
        namespace=meta.namespace,
        name=meta.name,
        ref=service.ref,
        created=meta.creation_timestamp or "",
        kubernetes=True,
        resolution=resolution,
        external=external,
        address=address,
        ports=tuple(Port(p.name, p.port, protocol_of(p), p.protocol == "TCP") for p in spec.ports),
        export_to=_exports(meta.annotations.get("networking.istio.io/exportTo", "")),
        selector=spec.selector,
        alias_of=spec.external_name if external else "",
    )


def hosts_of(entry: ServiceEntry) -> Iterable[Host]:
    spec = entry.spec
    for hostname in spec.hosts:
        for address in spec.addresses or (ANY,):
            yield Host(
                hostname=hostname,
                namespace=entry.namespace,
                name=hostname,
                ref=entry.ref,
                created=entry.metadata.creation_timestamp or "",
                kubernetes=False,
                resolution=_RESOLUTION.get(spec.resolution, PASSTHROUGH),
                external=spec.location != "MESH_INTERNAL",
                address=address.removesuffix("/32"),
                ports=tuple(Port(p.name, p.number, parse_protocol(p.protocol)) for p in spec.ports),
                export_to=spec.export_to,
                selector=spec.workload_selector.labels if spec.workload_selector else {},
            )


def tls_mode(labels: dict[str, str]) -> str:
    return labels.get(TLS_MODE, "disabled")


class Registry:
    """`mesh` is what the control plane reads (already narrowed by discovery selectors and revision)."""

    def __init__(self, mesh: Mesh, config: MeshConfig, faces: Callable[[], dict[str, tuple[Pod, ...]]]) -> None:
        self.mesh, self.config, self._faces = mesh, config, faces
        self._default = config.default_service_export_to or ("*",)
        hosts = [host_of(s) for s in mesh.services]
        hosts.extend(h for entry in mesh.service_entries for h in hosts_of(entry))
        self.hosts: tuple[Host, ...] = tuple(sorted(hosts, key=lambda h: (h.created, h.name, h.namespace)))
        self.by_name: dict[str, dict[str, Host]] = {}
        public: list[Host] = []
        private: dict[str, list[Host]] = {}
        for host in self.hosts:
            table = self.by_name.setdefault(host.hostname, {})
            earlier = table.get(host.namespace)
            if earlier is None or (not earlier.kubernetes and host.kubernetes):
                table[host.namespace] = host
            seen_by = host.export_to or self._default
            if "*" in seen_by:
                public.append(host)
            elif "~" not in seen_by:
                for namespace in {host.namespace if to == "." else to for to in seen_by}:
                    private.setdefault(namespace, []).append(host)
        self.public = tuple(public)
        self.private = {namespace: tuple(found) for namespace, found in private.items()}
        self._endpoints: dict[tuple[str, str], dict[int, tuple[Endpoint, ...]]] = {}

    def visible(self, namespace: str) -> tuple[Host, ...]:
        """The services exported to a namespace (servicesExportedToNamespace)."""
        private = self.private.get(namespace)
        return (*private, *self.public) if private else self.public

    def is_visible(self, host: Host, namespace: str) -> bool:
        seen_by = host.export_to or self._default
        if "~" in seen_by and "*" not in seen_by:
            return False
        return "*" in seen_by or namespace in seen_by or ("." in seen_by and host.namespace == namespace)

    def endpoints(self, host: Host) -> dict[int, tuple[Endpoint, ...]]:
        """Service port -> endpoints, those that are not ready or terminating included."""
        key = (host.hostname, host.namespace)
        found = self._endpoints.get(key)
        if found is None:
            found = self._endpoints[key] = self._of_service(host) if host.kubernetes else self._of_entry(host)
        return found

    def _of_service(self, host: Host) -> dict[int, tuple[Endpoint, ...]]:
        service = self.mesh.services_by_name.get((host.namespace, host.name))
        if service is None:
            return {}
        slices = self.mesh.slices_of.get((host.namespace, host.name))
        by_port: dict[int, list[Endpoint]] = {p.number: [] for p in host.ports}
        if slices is None:
            for pod in self._selected(host):
                for declared in service.spec.ports:
                    number = target_port(pod, declared)
                    if number is not None:
                        by_port[declared.port].append(_endpoint(pod, number, declared.name))
            return {number: tuple(found) for number, found in by_port.items()}
        numbers = {p.name: p.number for p in host.ports}
        seen: set[tuple[str, str]] = set()
        for piece in slices:
            if piece.address_type == "FQDN":
                continue
            for endpoint in piece.endpoints:
                state = endpoint.conditions
                going = state.ready is False and state.terminating is not False
                for address in endpoint.addresses:
                    known: Pod | None
                    ref = endpoint.target_ref
                    if ref is not None and ref.kind == "Pod":
                        known = self.pods.get((ref.namespace or host.namespace, ref.name))
                        if known is None:
                            continue
                        real = known
                    else:
                        known = next((p for p in self.by_ip.get(address, ()) if p.namespace == host.namespace), None)
                        real = known or next(iter(self.by_ip.get(address, ())), None)  # type: ignore[assignment]
                    for port in piece.ports:
                        number = numbers.get(port.name)
                        if number is None or (address, port.name) in seen:
                            continue
                        seen.add((address, port.name))
                        labels = known.labels if known else {}
                        by_port[number].append(
                            Endpoint(
                                address, port.port, port.name, labels, known.namespace if known else "",
                                tls_mode(labels), real, going,
                            )
                        )  # fmt: skip
        return {number: tuple(found) for number, found in by_port.items()}

    def _of_entry(self, host: Host) -> dict[int, tuple[Endpoint, ...]]:
        entry = self.mesh.find(host.ref)
        assert isinstance(entry, ServiceEntry)
        found: dict[int, list[Endpoint]] = {p.number: [] for p in entry.spec.ports}
        for port in entry.spec.ports:
            fallback = port.target_port or port.number
            if entry.spec.workload_selector is not None:
                for pod in self._selected(host):
                    found[port.number].append(_endpoint(pod, fallback, port.name))
                for other in self.mesh.workload_entries:
                    if other.namespace == host.namespace and subset(
                        host.selector, {**other.spec.labels, **other.metadata.labels}
                    ):
                        labels = {**other.spec.labels, **other.metadata.labels}
                        found[port.number].append(self._of_workload(other.spec, labels, fallback, port.name, host))
            elif not entry.spec.endpoints and host.resolution == DNS:
                found[port.number].append(
                    Endpoint(host.hostname, fallback, port.name, {}, host.namespace, "disabled", None)
                )
            else:
                for spec in entry.spec.endpoints:
                    found[port.number].append(self._of_workload(spec, spec.labels, fallback, port.name, host))
        return {number: tuple(endpoints) for number, endpoints in found.items()}

    def _of_workload(
        self, spec: WorkloadEntrySpec, labels: dict[str, str], fallback: int, port: str, host: Host
    ) -> Endpoint:
        mode = labels.get(TLS_MODE) or ("istio" if spec.service_account else "disabled")
        pod = next(iter(self.by_ip.get(spec.address, ())), None)
        return Endpoint(spec.address, spec.ports.get(port) or fallback, port, labels, host.namespace, mode, pod)

    def _selected(self, host: Host) -> Iterable[Pod]:
        if not host.selector:
            return ()
        return (pod for pod in self._faces().get(host.namespace, ()) if subset(host.selector, pod.labels))

    @cached_property
    def pods(self) -> dict[tuple[str, str], Pod]:
        return {(p.metadata.namespace, p.metadata.name): p for p in self.mesh.pods}

    @cached_property
    def by_ip(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.mesh.pods:
            if pod.status.phase not in ("Succeeded", "Failed"):
                for address in pod_addresses(pod):
                    found.setdefault(address, []).append(pod)
        return found

    @cached_property
    def _selecting(self) -> dict[tuple[str, str, str], list[tuple[Service, Host]]]:
        """(namespace, label, value) -> Services whose selector begins with that label."""
        found: dict[tuple[str, str, str], list[tuple[Service, Host]]] = {}
        for service in self.mesh.services:
            for key, value in service.spec.selector.items():
                host = self.by_name[f"{service.name}.{service.namespace}.svc.cluster.local"][service.namespace]
                found.setdefault((service.namespace, key, value), []).append((service, host))
                break
        return found

    @cached_property
    def _unselecting(self) -> dict[str, tuple[Service, ...]]:
        return by_namespace(s for s in self.mesh.services if not s.spec.selector)

    @cached_property
    def _entries_in(self) -> dict[str, tuple[ServiceEntry, ...]]:
        """Namespace -> ServiceEntries that select workloads."""
        return by_namespace(
            e for e in self.mesh.service_entries if e.spec.workload_selector and e.spec.workload_selector.labels
        )

    def serving(self, pod: Pod) -> list[tuple[Host, Port, int]]:
        """(service, its port, target port) of every service that makes a pod listen, in the order in which the first wins.

        Services select it; only where none does do EndpointSlices count (Controller.GetProxyServiceTargets).
        """
        found: list[tuple[Host, Port, int]] = []
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        for item in labels.items():
            for service, host in self._selecting.get((namespace, *item), ()):
                if not subset(service.spec.selector, labels):
                    continue
                for declared, port in zip(service.spec.ports, host.ports, strict=True):
                    number = target_port(pod, declared)
                    if number is not None:
                        found.append((host, port, number))
        if not found and namespace in self._unselecting:
            addresses = set(pod_addresses(pod))
            for service in self._unselecting[namespace] if addresses else ():
                host = self.by_name[f"{service.name}.{namespace}.svc.cluster.local"][namespace]
                for number, endpoints in self.endpoints(host).items():
                    known = host.port(number)
                    found.extend((host, known, e.port) for e in endpoints if e.address in addresses and known)
        for entry in self._entries_in.get(namespace, ()):
            assert entry.spec.workload_selector is not None
            if subset(entry.spec.workload_selector.labels, labels):
                for host in hosts_of(entry):
                    for declared_, port in zip(entry.spec.ports, host.ports, strict=True):
                        found.append((host, port, declared_.target_port or declared_.number))
        if len(found) > 1:
            found.sort(key=lambda item: (item[0].created, item[0].hostname))
        return found


def _endpoint(pod: Pod, port: int, name: str) -> Endpoint:
    addresses = pod_addresses(pod)
    address = addresses[0] if addresses else f"{pod.namespace}/{pod.name}"
    return Endpoint(address, port, name, pod.labels, pod.namespace, tls_mode(pod.labels), pod)

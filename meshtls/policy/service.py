"""What a service is to istiod: its ports with their protocol, its addresses, who sees it, and what answers for it.

1. A Service is `name.namespace.svc.cluster.local`; a ServiceEntry is each of its hosts at each of its addresses.
2. The protocol of a port is its appProtocol, else the first part of its name, else TCP on 25, 53, 3306, 27017, else detected
   from the first bytes (kube.ConvertProtocol).
3. A Service without cluster IP, and a ServiceEntry with resolution NONE, is passed through to the address that was called.
"""

from collections.abc import Iterable

import msgspec

from meshtls.model.objects import Pod, Service, ServiceEntry, ServicePort

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

EDS, PASSTHROUGH, DYNAMIC_DNS, ALIAS = "EDS", "PASSTHROUGH", "DYNAMIC_DNS", "ALIAS"
DNS = frozenset({"DNS", "DNS_ROUND_ROBIN"})
_RESOLUTION = {"NONE": PASSTHROUGH, "STATIC": EDS, "DYNAMIC_DNS": DYNAMIC_DNS, **{each: each for each in DNS}}


class Port(msgspec.Struct, frozen=True, gc=False):
    """`protocol` is Istio's; `tcp` is whether the transport is TCP: a TCP port named `udp-x` is UDP to Istio alone."""

    name: str
    number: int
    protocol: str
    tcp: bool = True


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """`tls_mode` is the label as istiod reads it; `pod` is what really answers at the address (None: unknown).

    `ready` and `going` (terminating) say who sends to it, see `answering`; whoever has its address reaches it all the same.
    """

    address: str
    port: int
    service_port: str
    labels: dict[str, str]
    namespace: str
    tls_mode: str
    pod: Pod | None
    going: bool = False
    ready: bool = True


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
    if target.isdecimal() and len(target) < 6:
        return int(target)
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers if c.restart_policy == "Always")]
    for container in containers:
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return None


def answering(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Those that traffic is sent to: the ready ones; where there is none, those that may become ready."""
    waiting = tuple(e for e in endpoints if not e.going)
    return tuple(e for e in waiting if e.ready) or waiting


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

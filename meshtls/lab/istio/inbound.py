"""The inbound side of a proxy: one listener on 15006 with a filter chain per port, mode and kind of bytes
(pilot/pkg/networking/core listener_inbound.go, filterchain_options.go).

The ports are the Sidecar's ingress if it has any, else those that services name; what is left goes through the
pass-through chains, which take the workload's mode, plus one set for each port that only the PeerAuthentication
names.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from meshtls.lab.istio import envoy, filters, policies
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, HTTP2, Target, labels, namespace_of, parse, pod_ip
from meshtls.lab.istio.world import World, remembered

ORIGINAL_DST = envoy.extension("filters.listener.original_dst.v3.OriginalDst")
TLS_INSPECTOR = envoy.extension("filters.listener.tls_inspector.v3.TlsInspector", initial_read_buffer_size=512)
HTTP_INSPECTOR = envoy.extension("filters.listener.http_inspector.v3.HttpInspector")


class Match(NamedTuple):
    """Which connections of a port a chain takes (no ALPN: any), and whether it handles HTTP and ends TLS."""

    transport: str
    alpn: list[str]
    http: bool
    ends_tls: bool


RAW, TLS = "raw_buffer", "tls"
ANY: list[str] = []
CHAINS: dict[tuple[str, str], list[Match]] = {
    ("http", "STRICT"): [Match(TLS, ANY, True, True)],
    ("http", "PERMISSIVE"): [Match(TLS, envoy.ALL_ALPN, True, True), Match(RAW, ANY, True, False)],
    ("http", "DISABLE"): [Match(RAW, ANY, True, False)],
    ("tcp", "STRICT"): [Match(TLS, ANY, False, True)],
    ("tcp", "PERMISSIVE"): [
        Match(TLS, envoy.ALL_ALPN, False, True),
        Match(TLS, ANY, False, False),
        Match(RAW, ANY, False, False),
    ],
    ("tcp", "DISABLE"): [Match(RAW, ANY, False, False)],
    ("auto", "STRICT"): [Match(TLS, envoy.HTTP_ALPN, True, True), Match(TLS, ANY, False, True)],
    ("auto", "PERMISSIVE"): [
        Match(TLS, envoy.HTTP_ALPN, True, True),
        Match(RAW, envoy.PLAIN_HTTP, True, False),
        Match(TLS, envoy.TCP_ALPN, False, True),
        Match(RAW, ANY, False, False),
        Match(TLS, ANY, False, False),
    ],
    ("auto", "DISABLE"): [Match(RAW, envoy.PLAIN_HTTP, True, False), Match(RAW, ANY, False, False)],
}
RETRY: Json = {"retry_on": "reset-before-request", "num_retries": 2}
WILDCARD = "0.0.0.0"
OWN_PORTS = (15021, 15090)  # where Envoy itself listens (conflictWithReservedListener)


class Served(msgspec.Struct, frozen=True):
    """An inbound port, 0 for those that nothing declares. `bound`: a socket of its own instead of a chain of 15006.
    `bind` of a Sidecar's ingress is the pod's address where it says none. `passes`: whatever was called, is reached."""

    number: int
    protocol: str
    bind: str = WILDCARD
    bound: bool = False
    service: str = ""
    passes: bool = False

    @property
    def cluster(self) -> str:
        """The name of the cluster behind it."""
        return envoy.INBOUND_PASSTHROUGH if self.passes else envoy.inbound(self.number)


def served(proxy: Proxy, targets: Iterable[Target]) -> list[Served]:
    """The declared ports, by number (buildInboundChainConfigs)."""
    none = proxy.interception == "NONE"
    found: dict[int, Served] = {}
    for entry in proxy.scope.ingress:
        mode, number = entry.get("captureMode") or "DEFAULT", int(entry["port"]["number"])
        protocol, bind = parse(entry["port"].get("protocol", "")), entry.get("bind") or ""
        bound = none if mode == "DEFAULT" else mode == "NONE"
        if number not in OWN_PORTS or not (bind == WILDCARD if bind else protocol in HTTP):
            found.setdefault(number, Served(number, protocol, bind or pod_ip(proxy.pod), bound))
    for target in () if proxy.scope.ingress or none else targets:
        if target.number not in (*OWN_PORTS, envoy.INBOUND_PORT, envoy.OUTBOUND_PORT):
            port = Served(target.number, target.port.protocol, service=target.service.hostname)
            found.setdefault(target.number, port)
    return sorted(found.values(), key=lambda s: s.number)


def listeners(proxy: Proxy, targets: list[Target]) -> list[Json]:
    """The inbound listeners of a proxy."""
    peer = policies.merge(proxy.world, namespace_of(proxy.pod), labels(proxy.pod))
    declared = {int(e["port"]["number"]) for e in proxy.scope.ingress} or {t.number for t in targets}
    undeclared = [Served(n, AUTO, passes=True) for n in (0, *sorted(set(peer.ports) - declared))]
    virtual = [filters.blackhole("virtualInbound-blackhole", envoy.INBOUND_PORT)]
    out: list[Json] = []
    for port in [*undeclared, *served(proxy, targets)]:
        chains = list(_chains(proxy, port, peer.for_port(port.number)))
        if port.bound:
            name = envoy.listener_name(port.bind, port.number)
            out.append(_listener(proxy, name, port.bind, port.number, [], chains))
        else:
            virtual += chains
    if proxy.interception == "NONE":
        return out
    return [_listener(proxy, "virtualInbound", WILDCARD, envoy.INBOUND_PORT, [ORIGINAL_DST], virtual), *out]


def _chains(proxy: Proxy, port: Served, mode: str) -> Iterable[Json]:
    kind = "http" if port.protocol in HTTP else "auto" if port.protocol == AUTO else "tcp"
    own = envoy.listener_name(port.bind, port.number)
    for match in CHAINS[kind, mode]:
        condition: Json = {"transport_protocol": match.transport}
        if port.number:
            condition["destination_port"] = port.number
        if match.alpn:
            condition["application_protocols"] = match.alpn
        through = "virtualInbound-catchall-http" if match.http else "virtualInbound"
        out = {
            "name": through if port.passes else own,
            "filter_chain_match": condition,
            "filters": _http(proxy, port) if match.http else _tcp(proxy, port),
        }
        if match.ends_tls:
            out["transport_socket"] = _ends_tls(proxy.world)
        yield out


@remembered
def _ends_tls(world: World) -> Json:
    return envoy.downstream_tls(world.trust_domains, world.mesh)


def _http(proxy: Proxy, port: Served) -> list[Json]:
    retries = None if port.protocol in ("grpc", "grpc-web") else RETRY
    route = filters.default_route(port.cluster, f"{port.service or port.cluster}:{port.number}/*", retries)
    routes = {
        "name": port.cluster,
        "validate_clusters": False,
        "virtual_hosts": [{"name": f"inbound|http|{port.number}", "domains": ["*"], "routes": [route]}],
    }
    return [
        filters.manager(
            port.cluster if port.passes else f"inbound_{envoy.listener_name(port.bind, port.number)}",
            routes,
            [*proxy.authorization(), filters.GRPC_STATS],
            proxy.logs.http("inbound", port.service),
            forward_client_cert_details="APPEND_FORWARD",
            set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
            http2_protocol_options={} if port.protocol in HTTP2 else None,
        )
    ]


def _tcp(proxy: Proxy, port: Served) -> list[Json]:
    return [*proxy.authorization(tcp=True), filters.tcp_proxy(port.cluster, proxy.logs.tcp("inbound", port.service))]


def _listener(proxy: Proxy, name: str, ip: str, port: int, first: list[Json], chains: list[Json]) -> Json:
    return {
        "name": name,
        "address": envoy.address(ip, port),
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": proxy.world.mesh.get("protocolDetectionTimeout") or "0s",
        "listener_filters": first + _inspectors(chains),
        "filter_chains": chains,
        "access_log": proxy.logs.listener("inbound"),
    }


def _inspectors(chains: list[Json]) -> list[Json]:
    """The TLS and HTTP inspectors, switched off on ports where no chain needs them (populateListenerFilters)."""
    tls: dict[int, bool] = {}
    http: dict[int, bool] = {}
    for chain in chains:
        match = chain["filter_chain_match"]
        port = match.get("destination_port", 0)
        tls[port] = tls.get(port, False) or match.get("transport_protocol") == "tls"
        http[port] = http.get(port, False) or bool(set(match.get("application_protocols", ())) & set(envoy.PLAIN_HTTP))
    needed_else = tls.get(0, False)
    out = []
    if any(tls.values()):
        rule = _ports(p for p, needed in tls.items() if p and needed != needed_else)
        out.append(_without(TLS_INSPECTOR, rule if rule is None or needed_else else {"not_match": rule}))
    if any(http.values()):
        out.append(_without(HTTP_INSPECTOR, _ports(p for p, needed in http.items() if not needed)))
    return out


def _ports(ports: Iterable[int]) -> Json | None:
    ranges: list[Json] = [{"destination_port_range": {"start": p, "end": p + 1}} for p in sorted(ports)]
    return {"or_match": {"rules": ranges}} if len(ranges) > 1 else next(iter(ranges), None)


def _without(inspector: Json, rule: Json | None) -> Json:
    return inspector | ({"filter_disabled": rule} if rule else {})

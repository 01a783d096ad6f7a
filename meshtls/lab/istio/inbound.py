"""The inbound side of a proxy: one listener on 15006 with a filter chain per port, mode and kind of bytes
(pilot/pkg/networking/core listener_inbound.go, filterchain_options.go).

The ports are the Sidecar's ingress if it has any, else those that services name; what is left goes through the
pass-through chains, which take the workload's mode, plus one set for each port that only the PeerAuthentication
names.
"""

from collections.abc import Iterable

import msgspec

from meshtls.lab.istio import envoy, filters, policies
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Chain, Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, HTTP2, Target, labels, namespace_of, parse, pod_ip

ORIGINAL_DST = envoy.extension("envoy.filters.listener.original_dst", "filters.listener.original_dst.v3.OriginalDst")
TLS_INSPECTOR = envoy.extension(
    "envoy.filters.listener.tls_inspector",
    "filters.listener.tls_inspector.v3.TlsInspector",
    initial_read_buffer_size=512,
)
HTTP_INSPECTOR = envoy.extension(
    "envoy.filters.listener.http_inspector", "filters.listener.http_inspector.v3.HttpInspector"
)


class Match(msgspec.Struct, frozen=True):
    """Which connections of a port a chain takes (no ALPN: any), and whether it handles HTTP and ends TLS."""

    transport: str
    alpn: tuple[str, ...]
    http: bool
    tls: bool


def _matches(*rows: tuple[str, list[str], bool, bool]) -> tuple[Match, ...]:
    return tuple(Match(t, tuple(a), h, e) for t, a, h, e in rows)


RAW, TLS = "raw_buffer", "tls"
ANY: list[str] = []
CHAINS: dict[tuple[str, str], tuple[Match, ...]] = {
    ("http", "STRICT"): _matches((TLS, ANY, True, True)),
    ("http", "PERMISSIVE"): _matches((TLS, envoy.ALL_ALPN, True, True), (RAW, ANY, True, False)),
    ("http", "DISABLE"): _matches((RAW, ANY, True, False)),
    ("tcp", "STRICT"): _matches((TLS, ANY, False, True)),
    ("tcp", "PERMISSIVE"): _matches(
        (TLS, envoy.ALL_ALPN, False, True), (TLS, ANY, False, False), (RAW, ANY, False, False)
    ),
    ("tcp", "DISABLE"): _matches((RAW, ANY, False, False)),
    ("auto", "STRICT"): _matches((TLS, envoy.HTTP_ALPN, True, True), (TLS, ANY, False, True)),
    ("auto", "PERMISSIVE"): _matches(
        (TLS, envoy.HTTP_ALPN, True, True),
        (RAW, envoy.PLAIN_HTTP, True, False),
        (TLS, envoy.TCP_ALPN, False, True),
        (RAW, ANY, False, False),
        (TLS, ANY, False, False),
    ),
    ("auto", "DISABLE"): _matches((RAW, envoy.PLAIN_HTTP, True, False), (RAW, ANY, False, False)),
}


WILDCARD = "0.0.0.0"
OWN_PORTS = (15021, 15090)  # where Envoy itself listens (conflictWithReservedListener)


class Served(msgspec.Struct, frozen=True):
    """A declared inbound port. `bound`: a socket of its own instead of a chain of 15006. `bind` of a Sidecar's ingress
    is the pod's address where it says none."""

    number: int
    protocol: str
    bind: str = WILDCARD
    bound: bool = False
    service: str = ""


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
    if not proxy.scope.ingress and not none:
        for target in targets:
            if target.number not in (*OWN_PORTS, envoy.INBOUND_PORT, envoy.OUTBOUND_PORT):
                found.setdefault(
                    target.number, Served(target.number, target.port.protocol, service=target.service.hostname)
                )
    return sorted(found.values(), key=lambda s: s.number)


def listeners(proxy: Proxy, targets: list[Target]) -> list[Json]:
    """The inbound listeners of a proxy."""
    world, ports = proxy.world, served(proxy, targets)
    peer = policies.merge(world, namespace_of(proxy.pod), labels(proxy.pod))
    declared = {int(e["port"]["number"]) for e in proxy.scope.ingress} or {t.number for t in targets}
    undeclared = [0, *sorted(set(peer.ports) - declared)]
    through: list[Json] = [_blackhole()]
    for number in undeclared:
        through += _chains(proxy, Served(number, AUTO), peer.for_port(number), passthrough=True)
    out: list[Json] = []
    virtual: list[Json] = []
    for port in ports:
        chains = _chains(proxy, port, peer.for_port(port.number), passthrough=False)
        if port.bound:
            out.append(
                _listener(proxy, envoy.listener_name(port.bind, port.number), port.bind, port.number, True, chains)
            )
        else:
            virtual += chains
    if proxy.interception != "NONE":
        out.insert(0, _listener(proxy, "virtualInbound", "0.0.0.0", envoy.INBOUND_PORT, False, through + virtual))
    return out


def _blackhole() -> Json:
    return {
        "name": "virtualInbound-blackhole",
        "filter_chain_match": {"destination_port": envoy.INBOUND_PORT},
        "filters": [filters.blackhole()],
    }


def _chains(proxy: Proxy, port: Served, mode: str, passthrough: bool) -> list[Json]:
    kind = "http" if port.protocol in HTTP else "auto" if port.protocol == AUTO else "tcp"
    name = envoy.listener_name(port.bind, port.number)
    cluster = envoy.INBOUND_PASSTHROUGH if passthrough else envoy.inbound(port.number)
    out = []
    for match in CHAINS[kind, mode]:
        chain = Chain(
            name=name if not passthrough else "virtualInbound-catchall-http" if match.http else "virtualInbound",
            cluster=cluster,
            port=port.number,
            http2=port.protocol in HTTP2,
            service=port.service,
            mtls=match.tls,
            grpc=port.protocol in ("grpc", "grpc-web"),
            stat_prefix=f"{cluster}" if passthrough else f"inbound_{name}",
        )
        condition: Json = {"destination_port": port.number} if port.number else {}
        condition["transport_protocol"] = match.transport
        if match.alpn:
            condition["application_protocols"] = list(match.alpn)
        out.append(
            {
                "name": chain.name,
                "filter_chain_match": condition,
                "filters": filters.inbound_http(proxy, chain) if match.http else filters.inbound_tcp(proxy, chain),
                **(
                    {"transport_socket": envoy.downstream_tls(proxy.world.trust_domains, proxy.world.mesh)}
                    if match.tls
                    else {}
                ),
            }
        )
    return out


def _listener(proxy: Proxy, name: str, ip: str, port: int, bound: bool, chains: list[Json]) -> Json:
    return {
        "name": name,
        "address": envoy.address(ip, port),
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": proxy.world.mesh.get("protocolDetectionTimeout") or "0s",
        "listener_filters": ([] if bound else [ORIGINAL_DST]) + inspectors(chains),
        "filter_chains": chains,
        "access_log": proxy.logs.listener("inbound"),
    }


def inspectors(chains: list[Json]) -> list[Json]:
    """The TLS and HTTP inspectors, switched off on ports where no chain needs them (populateListenerFilters)."""
    tls: dict[int, bool] = {}
    http: dict[int, bool] = {}
    for chain in chains:
        match = chain.get("filter_chain_match", {})
        port = match.get("destination_port", 0)
        tls[port] = tls.get(port, False) or match.get("transport_protocol") == "tls"
        http[port] = http.get(port, False) or bool(set(match.get("application_protocols", ())) & set(envoy.PLAIN_HTTP))
    out = []
    if any(tls.values()):
        ports = sorted(p for p, needed in tls.items() if p and needed != tls.get(0, False))
        rule = _port_rule(ports) if ports else None
        if rule and not tls.get(0, False):
            rule = {"not_match": rule}
        out.append(TLS_INSPECTOR | ({"filter_disabled": rule} if rule else {}))
    if any(http.values()):
        ports = sorted(p for p, needed in http.items() if not needed)
        out.append(HTTP_INSPECTOR | ({"filter_disabled": _port_rule(ports)} if ports else {}))
    return out


def _port_rule(ports: list[int]) -> Json:
    ranges: list[Json] = [{"destination_port_range": {"start": p, "end": p + 1}} for p in ports]
    return ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}

"""Reads produced Envoy configuration as Envoy would, without starting one: which listener, filter chain, route,
cluster and transport socket a connection meets, then what the server's proxy does with it.

Knows nothing of Istio's objects: only the configuration and the pods' addresses.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from meshtls.lab import istio
from meshtls.lab.istio.objects import name_of, namespace_of, pod_ip
from meshtls.lab.istio.world import World

Json = dict[str, Any]


@dataclass
class Connection:
    """Bytes on their way: `tls` is "" for plaintext, "mtls" for the mesh's, "tls" for the application's own."""

    address: str
    port: int
    protocol: str  # "http" or "tcp"
    host: str = ""
    tls: str = ""
    alpn: tuple[str, ...] = ()
    sni: str = ""
    path: str = "/"


@dataclass
class Proxy:
    """One pod's configuration, or none."""

    listeners: dict[tuple[str, int], Json] = field(default_factory=dict)
    clusters: dict[str, Json] = field(default_factory=dict)
    present: bool = False

    @classmethod
    def of(cls, world: World, pod: Json) -> Proxy:
        if not istio.has_proxy(pod):
            return cls()
        listeners = {}
        for listener in istio.listeners(world, pod).items:
            where = listener["address"]["socket_address"]
            listeners[where["address"], where["port_value"]] = listener
        return cls(listeners, {c["name"]: c for c in istio.clusters(world, pod).items}, True)


@dataclass
class Hop:
    """One endpoint that a call may reach: `sends` is mtls, plaintext, tls or none; `cluster` says why for none."""

    address: str
    port: int
    sends: str
    cluster: str
    alpn: tuple[str, ...] = ()
    sni: str = ""
    protocol: str = "tcp"


def outbound(proxy: Proxy, call: Connection) -> list[Hop]:
    """Where a call from behind this proxy goes."""
    if not proxy.present:
        return [Hop(call.address, call.port, call.tls or "plaintext", "", call.alpn, call.sni, call.protocol)]
    listener = proxy.listeners.get((call.address, call.port)) or proxy.listeners.get(("0.0.0.0", call.port))
    if listener is None or call.port in (15001, 15006):
        listener = proxy.listeners[("0.0.0.0", 15001)]
    chain = match_chain(listener, call)
    if chain is None:
        return [Hop(call.address, call.port, "none", "no chain")]
    names, is_http = target(chain, call)
    return [hop for name in names for hop in through(proxy, name, call, is_http)]


def through(proxy: Proxy, name: str, call: Connection, is_http: bool) -> list[Hop]:
    """What leaves the proxy by a cluster."""
    cluster = proxy.clusters.get(name)
    if not name or name == "BlackHoleCluster":
        return [Hop(call.address, call.port, "none", name or "no route")]
    if cluster is None:
        return [Hop(call.address, call.port, "none", f"no cluster {name}")]
    if cluster["type"] == "ORIGINAL_DST":
        found: list[tuple[str, int, Json]] = [(call.address, call.port, {})]
    else:
        found = []
        for locality in cluster["load_assignment"]["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                where = endpoint["endpoint"]["address"]["socket_address"]
                marks = endpoint.get("metadata", {}).get("filter_metadata", {}).get("envoy.transport_socket_match", {})
                found.append((where["address"], where["port_value"], marks))
    out = []
    for address, port, marks in found:
        socket = cluster.get("transport_socket")
        for option in cluster.get("transport_socket_matches", ()):
            if all(marks.get(k) == v for k, v in option["match"].items()):
                socket = option["transport_socket"]
                break
        sends, alpn, sni = tls_of(socket)
        if sends == "plaintext" and call.tls:
            sends, alpn, sni = call.tls, call.alpn, call.sni
        if sends == "mtls" and is_http:
            alpn = tuple(cluster["metadata"]["filter_metadata"]["istio"]["alpn"].split(","))
        out.append(Hop(address, port, sends, name, alpn, sni, call.protocol))
    return out


def tls_of(socket: Json | None) -> tuple[str, tuple[str, ...], str]:
    """What a client's transport socket sends, with which ALPN and SNI."""
    if socket is None or socket["name"].endswith("raw_buffer"):
        return "plaintext", (), ""
    context = socket["typed_config"]
    common = context["common_tls_context"]
    mesh = any(s["name"] == "default" for s in common.get("tls_certificate_sds_secret_configs", ()))
    return "mtls" if mesh else "tls", tuple(common.get("alpn_protocols", ())), context.get("sni", "")


def inbound(proxy: Proxy, call: Connection) -> Json | None:
    """The chain of the server's proxy that takes the connection."""
    return match_chain(proxy.listeners[("0.0.0.0", 15006)], call)


def served(proxy: Proxy, hop: Hop) -> str:
    """WORKS, BREAKS, or APP where foreign TLS reaches the application."""
    if hop.sends == "none":
        return "BREAKS"
    if not proxy.present:
        return {"plaintext": "WORKS", "tls": "APP", "mtls": "BREAKS"}[hop.sends]
    call = Connection(
        hop.address,
        hop.port,
        hop.protocol,
        tls="" if hop.sends == "plaintext" else hop.sends,
        alpn=hop.alpn,
        sni=hop.sni,
    )
    chain = inbound(proxy, call)
    if chain is None:
        return "BREAKS"
    ends_tls = "transport_socket" in chain
    if hop.sends == "plaintext":
        return "BREAKS" if ends_tls else "WORKS"
    if hop.sends == "tls":
        return "BREAKS" if ends_tls or is_http_chain(chain) else "APP"
    # Bytes of another protocol inside the mesh's TLS end at the connection manager; in plaintext istiod's simulation
    # takes what the port takes, whatever the bytes.
    return "WORKS" if ends_tls and not (hop.protocol == "tcp" and is_http_chain(chain)) else "BREAKS"


def mode(proxy: Proxy, port: int) -> str:
    """What a port accepts, by its chains: STRICT, PERMISSIVE or DISABLE."""
    plain = accepts(proxy, Connection("10.0.0.1", port, "tcp"), tls=False)
    mesh = any(
        accepts(proxy, Connection("10.0.0.1", port, "tcp", tls="mtls", alpn=(a,)), tls=True)
        for a in ("istio", "istio-http/1.1")
    )
    return {(True, True): "PERMISSIVE", (True, False): "DISABLE", (False, True): "STRICT"}[plain, mesh]


def accepts(proxy: Proxy, call: Connection, tls: bool) -> bool:
    chain = inbound(proxy, call)
    return chain is not None and ("transport_socket" in chain) == tls


def target(chain: Json, call: Connection) -> tuple[list[str], bool]:
    """The clusters that a chain sends to ("" for an answer of the proxy's own), and whether it speaks HTTP."""
    config = chain["filters"][-1]["typed_config"]
    if not is_http_chain(chain):
        return clusters_of(config), False
    host = virtual_host(config["route_config"], call.host)
    for route in host["routes"] if host else ():
        match = route["match"]
        if call.protocol == "http" and fits(match, call):
            return clusters_of(route.get("route", {"cluster": ""})), True
    return [""], True


def fits(match: Json, call: Connection) -> bool:
    """Whether a plain GET without special headers takes a route; an absent header may count as empty."""
    if "safe_regex" in match:
        path = re.fullmatch(match["safe_regex"]["regex"], call.path) is not None
    else:
        path = call.path.startswith(match["prefix"]) if "prefix" in match else call.path == match.get("path")
    known = {":method": "GET", ":authority": call.host, ":scheme": "http"}
    return path and not match.get("query_parameters") and all(_carries(h, known) for h in match.get("headers", ()))


def _carries(wanted: Json, known: dict[str, str]) -> bool:
    value = known.get(wanted["name"], "" if wanted.get("treat_missing_header_as_empty") else None)
    inverted = bool(wanted.get("invert_match"))
    if "string_match" not in wanted:
        return (value is not None) != inverted
    if value is None:
        return False
    match = wanted["string_match"]
    if "safe_regex" in match:
        found = re.fullmatch(match["safe_regex"]["regex"], value) is not None
    else:
        found = value.startswith(match["prefix"]) if "prefix" in match else value == match["exact"]
    return found != inverted


def clusters_of(action: Json) -> list[str]:
    weighted = action.get("weighted_clusters", {}).get("clusters")
    return [w["name"] for w in weighted] if weighted else [action.get("cluster", "")]


def is_http_chain(chain: Json) -> bool:
    return chain["filters"][-1]["name"].endswith("http_connection_manager")


def virtual_host(table: Json, host: str) -> Json | None:
    """Exact, then the longest suffix wildcard, then the longest prefix wildcard, then `*`."""
    found: tuple[int, int, Json] | None = None
    for candidate in table["virtual_hosts"]:
        for domain in candidate["domains"]:
            if domain == host:
                rank = (3, 0)
            elif domain == "*":
                rank = (0, 0)
            elif domain.startswith("*") and host.endswith(domain[1:]):
                rank = (2, len(domain))
            elif domain.endswith("*") and host.startswith(domain[:-1]):
                rank = (1, len(domain))
            else:
                continue
            if found is None or rank > found[:2]:
                found = (*rank, candidate)
    return found[2] if found else None


def enabled(listener: Json, name: str, port: int) -> bool:
    """Whether a listener filter looks at connections to the port."""
    for entry in listener.get("listener_filters", ()):
        if entry["name"].endswith(name):
            return not holds(entry["filter_disabled"], port) if "filter_disabled" in entry else True
    return False


def holds(rule: Json, port: int) -> bool:
    if "or_match" in rule:
        return any(holds(r, port) for r in rule["or_match"]["rules"])
    if "not_match" in rule:
        return not holds(rule["not_match"], port)
    ports = rule["destination_port_range"]
    return bool(ports.get("start", 0) <= port < ports["end"])


def match_chain(listener: Json, call: Connection) -> Json | None:
    """Envoy's sieve: port, address, server name, transport, ALPN; each step keeps the best fits only."""
    inspected = enabled(listener, "tls_inspector", call.port)
    transport = "tls" if call.tls and inspected else "raw_buffer"
    alpn = call.alpn if transport == "tls" else ()
    if not call.tls and enabled(listener, "http_inspector", call.port):
        alpn = ("http/1.1",) if call.protocol == "http" else ()
    sni = call.sni if transport == "tls" else ""
    chains = [(c, c.get("filter_chain_match", {})) for c in listener["filter_chains"]]
    chains = sieve(chains, "destination_port", lambda v: int(v == call.port))
    chains = sieve(chains, "prefix_ranges", lambda v: max((prefix(r, call.address) for r in v), default=0))
    chains = sieve(chains, "server_names", lambda v: max((server_name(s, sni) for s in v), default=0))
    chains = sieve(chains, "transport_protocol", lambda v: int(v == transport))
    chains = sieve(
        chains, "application_protocols", lambda v: max((len(alpn) - alpn.index(a) for a in v if a in alpn), default=0)
    )
    assert len(chains) < 2, [c[1] for c in chains]
    return chains[0][0] if chains else listener.get("default_filter_chain")


def sieve(chains: list[tuple[Json, Json]], key: str, rank: Any) -> list[tuple[Json, Json]]:
    ranked = [(rank(m[key]), c, m) for c, m in chains if m.get(key)]
    best = max((r for r, _, _ in ranked), default=0)
    if best:
        return [(c, m) for r, c, m in ranked if r == best]
    return [(c, m) for c, m in chains if not m.get(key)]


def prefix(cidr: Json, address: str) -> int:
    network = ipaddress.ip_network(f"{cidr['address_prefix']}/{cidr['prefix_len']}", strict=False)
    return network.prefixlen + 1 if ipaddress.ip_address(address) in network else 0


def server_name(pattern: str, sni: str) -> int:
    if pattern == sni:
        return 1 << 20
    return len(pattern) if pattern.startswith("*") and sni.endswith(pattern[1:]) else 0


class Mesh:
    """All proxies of a world, made when first asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.proxies: dict[str, Proxy] = {}
        self.pods = {f"{namespace_of(p)}/{name_of(p)}": p for p in world.lists.get("pods", ())}
        self.by_ip = {pod_ip(p): key for key, p in self.pods.items()}

    def proxy(self, pod: str) -> Proxy:
        if pod not in self.proxies:
            self.proxies[pod] = Proxy.of(self.world, self.pods[pod])
        return self.proxies[pod]

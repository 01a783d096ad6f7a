"""The outbound side of a proxy: 15001 hands each connection to the listener of its original address
(pilot/pkg/networking/core listener.go, tls.go).

HTTP services of a port share 0.0.0.0_<port>; TCP services have <cluster IP>_<port>; ports of unknown protocol have
both kinds of chain on their own address; headless TCP services have one listener per pod. What no listener takes
passes through, or ends in BlackHoleCluster under REGISTRY_ONLY.
"""

from typing import Any

import msgspec

from meshtls.lab.istio import envoy, filters, hosts, routes
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.inbound import HTTP_INSPECTOR, OWN_PORTS, TLS_INSPECTOR, WILDCARD
from meshtls.lab.istio.objects import AUTO, HTTP, TCP, TLS, Obj, Port, Service
from meshtls.lab.istio.scope import Listener
from meshtls.lab.istio.virtualservice import VirtualService

EXPLICIT = "http_proxy"
RESERVED = (*OWN_PORTS, envoy.OUTBOUND_PORT, envoy.INBOUND_PORT)


class Chain(msgspec.Struct, frozen=True):
    """A filter chain to be. `sniffed`: of what comes, it takes plain HTTP only."""

    filters: list[Json]
    sni: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    sniffed: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether nothing narrows the chain; 0.0.0.0 as a destination narrows nothing but is no match-all either."""
        return (not self.sni or "*" in self.sni) and not self.sniffed and not self.cidrs

    @property
    def key(self) -> Any:
        """Two chains with one key cannot stand in one listener."""
        return self.sniffed, frozenset(self.sni) - {"*"}, frozenset(self.cidrs) - {WILDCARD}

    def match(self) -> Json:
        """Its FilterChainMatch."""
        out: Json = {}
        if self.sniffed:
            out |= {"transport_protocol": "raw_buffer", "application_protocols": envoy.PLAIN_HTTP}
        if self.sni and "*" not in self.sni:
            out["server_names"] = sorted(self.sni)
        ranges = [envoy.cidr(c) for c in sorted(self.cidrs) if not c.startswith(WILDCARD)]
        return out | ({"prefix_ranges": ranges} if ranges else {})


class Entry(msgspec.Struct):
    """A listener to be."""

    bind: str
    port: int
    bound: bool
    chains: list[Chain]
    protocol: str
    locked: bool = False


class Builder:
    """Collects one proxy's outbound listeners (buildSidecarOutboundListeners)."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.world, self.scope = proxy, proxy.world, proxy.scope
        self.entries: dict[tuple[str, int], Entry] = {}

    def listeners(self) -> list[Json]:
        """All outbound listeners, the virtual one last."""
        for listener in self.scope.listeners:
            declared = listener.declared.get("port") or {}
            protocol = str(declared.get("protocol", "")).lower()
            if protocol == EXPLICIT:
                continue  # a forward proxy, not translated
            bound = self.proxy.interception == "NONE" or listener.declared.get("captureMode") == "NONE"
            bind = listener.declared.get("bind") or ("127.0.0.1" if bound else "")
            named = Port(declared.get("name") or "", listener.port, protocol if protocol in HTTP | TCP else AUTO)
            for entry in self.entries.values() if not listener.port else ():
                entry.locked = True
            for service in listener.services:
                for port in (named,) if listener.port else service.ports:
                    if port.number in RESERVED and (bind == WILDCARD if bind else port.protocol in HTTP):
                        continue
                    for address in [bind] if listener.port else self._addresses(service, port, bind):
                        self._add(listener, service, port, address, bound)
        out = [self._finish(e) for e in self.entries.values()]
        return out if self.proxy.interception == "NONE" else [*out, self._virtual()]

    def _addresses(self, service: Service, port: Port, bind: str) -> list[str]:
        """Where a service's port is listened for: "" stands for its own place, headless TCP has each pod's address."""
        headless = service.resolution == "PASSTHROUGH" and service.addresses[0] == WILDCARD
        if bind or not headless or port.protocol not in TCP | {AUTO}:
            return [bind]
        endpoints = self.world.instances(service, port.number)
        if not service.kubernetes and not endpoints and not service.selector:
            return [bind]
        return [e.address for e in endpoints if hosts.is_ip(e.address)]

    def _add(self, listener: Listener, service: Service, port: Port, bind: str, bound: bool) -> None:
        """buildSidecarOutboundListener: makes the chains, and settles who shares a listener with whom."""
        if service.resolution == "ALIAS" or port.protocol == "udp":
            return
        http, auto = port.protocol in HTTP, port.protocol == AUTO
        cidrs: tuple[str, ...] = ()
        if not bind:
            bind = WILDCARD if http else service.addresses[0]
            if "/" in bind:
                bind, cidrs = WILDCARD, service.addresses
        known = self.entries.get((bind, port.number))
        if known is not None and known.locked:
            return
        if port.protocol == EXPLICIT:
            known = None  # it takes the place of what is there
        elif known is not None and http and known.protocol not in TCP:
            return
        mine = [v for v in listener.virtual_services if any(hosts.matches(h, service.hostname) for h in v.hosts)]
        make = self._tls_chains if port.protocol in TLS else self._tcp_chains
        chains = [] if http else make(mine, service, port, bind, cidrs)
        if http or (auto and (known is None or known.protocol != AUTO)):
            host = service.hostname if auto and bind != WILDCARD else ""
            table = routes.for_listener(self.proxy, port.number, host)
            name = f"outbound_{envoy.listener_name(bind, port.number)}"
            manager = filters.manager(name, table, [filters.GRPC_STATS, filters.ALPN_FILTER], self.proxy.logs.http("outbound"))
            chains.append(Chain([manager], sniffed=auto or (bind == WILDCARD and port.protocol != EXPLICIT)))
        if known is None or (auto and known.protocol in HTTP):
            protocol = AUTO if http and chains[-1].sniffed else port.protocol
            self.entries[bind, port.number] = Entry(bind, port.number, bound, chains, protocol)
            return
        if {"mongo", "mysql"} & {port.protocol, known.protocol} and port.protocol != known.protocol:
            return  # where the server speaks first, nothing is sniffed
        for chain in chains:
            if all(chain.key != other.key for other in known.chains):
                known.chains.append(chain)
        if not (port.protocol in TCP and known.protocol in TCP):
            known.protocol = AUTO

    def _tls_chains(
        self, virtual: list[VirtualService], service: Service, port: Port, bind: str, cidrs: tuple[str, ...]
    ) -> list[Chain]:
        """buildSidecarOutboundTLSFilterChainOpts."""
        out: dict[Any, Chain] = {}
        for v in virtual:
            for entry in v.routes["tls"]:
                for match in entry.get("match") or []:
                    if not entry.get("route") or not self.proxy.meets(match, port.number):
                        continue
                    names, subnets = (tuple(match.get(f) or ()) for f in ("sniHosts", "destinationSubnets"))
                    cidrs = subnets or cidrs
                    if (names, subnets) not in out:
                        out[names, subnets] = self._to(entry["route"], port, v, cidrs, names)
        if out:
            return list(out.values())
        address = "" if "/" in service.addresses[0] else service.addresses[0]
        sni: tuple[str, ...] = ()
        if cidrs or not address or (address == WILDCARD and bind == WILDCARD):
            aliases = self.world.aliases.get(service.hostname, ())
            extra = (n for a in aliases for n in (a, *hosts.alternatives(a, self.scope.domain)))
            sni = (service.hostname, *extra)
        return [self._default(service, port, cidrs, sni)]

    def _tcp_chains(
        self, virtual: list[VirtualService], service: Service, port: Port, bind: str, cidrs: tuple[str, ...]
    ) -> list[Chain]:
        """buildSidecarOutboundTCPFilterChainOpts."""
        out: list[Chain] = []
        settled = False
        for v in virtual:
            for entry in v.routes["tcp"]:
                if not entry.get("route"):
                    continue
                met = [m for m in entry.get("match") or [{}] if self.proxy.meets(m, port.number)]
                ranges = [m.get("destinationSubnets") or [] for m in met]
                if not all(ranges):
                    return [*out, self._to(entry["route"], port, v, cidrs)]
                subnets = tuple(s for r in ranges for s in r)
                if subnets:
                    out.append(self._to(entry["route"], port, v, subnets))
                    settled |= sorted(subnets) == sorted(cidrs)
        return out if settled else [*out, self._default(service, port, cidrs)]

    def _default(self, service: Service, port: Port, cidrs: tuple[str, ...], sni: tuple[str, ...] = ()) -> Chain:
        number = service.ports[0].number if len(service.ports) == 1 else port.number
        return Chain(self._proxied(envoy.outbound(service.hostname, number)), sni, cidrs)

    def _to(
        self, destinations: list[Obj], port: Port, v: VirtualService, cidrs: tuple[str, ...], sni: tuple[str, ...] = ()
    ) -> Chain:
        target = routes.target(destinations, self.scope.services, port.number)
        return Chain(self._proxied(target.get("cluster", f"{v.name}.{v.namespace}"), target), sni, cidrs)

    def _proxied(self, stat_prefix: str, target: Json | None = None) -> list[Json]:
        return [filters.tcp_proxy(stat_prefix, self.proxy.logs.tcp("outbound"), target)]

    def _finish(self, entry: Entry) -> Json:
        """buildListenerFromEntry."""
        sniffed = any(c.sniffed for c in entry.chains)
        out: Json = {
            "name": envoy.listener_name(entry.bind, entry.port),
            "address": envoy.address(entry.bind, entry.port),
            "traffic_direction": "OUTBOUND",
            "continue_on_listener_filters_timeout": True,
            "listener_filters_timeout": sniffed and self.world.mesh.get("protocolDetectionTimeout") or "0s",
            "listener_filters": [TLS_INSPECTOR] * any(c.sni for c in entry.chains) + [HTTP_INSPECTOR] * sniffed,
        }
        if not entry.bound:
            out["bind_to_port"] = False
        whole: list[Json] = [{"filters": c.filters} for c in entry.chains if c.takes_all]
        narrow = [{"filter_chain_match": c.match(), "filters": c.filters} for c in entry.chains if not c.takes_all]
        out["filter_chains"] = narrow or whole[-1:]
        if narrow:
            rest = {"name": "PassthroughFilterChain", "filters": self._proxied(self.scope.unclaimed)}
            out["default_filter_chain"] = whole[-1] if whole else rest
        return out

    def _virtual(self) -> Json:
        rest: Json = {"name": "virtualOutbound-catchall-tcp", "filters": self._proxied(self.scope.unclaimed)}
        return {
            "name": "virtualOutbound",
            "address": envoy.address(WILDCARD, envoy.OUTBOUND_PORT),
            "use_original_dst": True,
            "traffic_direction": "OUTBOUND",
            "filter_chains": [filters.blackhole("virtualOutbound-blackhole", envoy.OUTBOUND_PORT), rest],
            "access_log": self.proxy.logs.listener("outbound"),
        }

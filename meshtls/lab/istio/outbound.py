"""The outbound side of a proxy: 15001 hands each connection to the listener of its original address
(pilot/pkg/networking/core listener.go, tls.go).

HTTP services of a port share 0.0.0.0_<port>; TCP services have <cluster IP>_<port>; ports of unknown protocol have
both kinds of chain on their own address; headless TCP services have one listener per pod. What no listener takes
passes through, or ends in BlackHoleCluster under REGISTRY_ONLY.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from meshtls.lab.istio import envoy, filters, hosts, routes
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.inbound import HTTP_INSPECTOR, TLS_INSPECTOR
from meshtls.lab.istio.objects import AUTO, HTTP, TCP, TLS, Obj, Port, Service, namespace_of, spec
from meshtls.lab.istio.scope import Listener

WILDCARD = "0.0.0.0"
LOCAL = ("127.0.0.1",)


class Chain(msgspec.Struct, frozen=True):
    """A filter chain to be: what it takes, and how its filters are made once the listener is known."""

    build: Callable[[str], list[Json]]
    sni: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    http: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether nothing narrows the chain; 0.0.0.0 as a destination narrows nothing but is no match-all either."""
        return (not self.sni or "*" in self.sni) and not self.http and not self.cidrs

    @property
    def key(self) -> Any:
        """Two chains with one key cannot stand in one listener."""
        return self.http, frozenset(self.sni) - {"*"}, frozenset(c for c in self.cidrs if c != WILDCARD)

    def match(self) -> Json:
        """Its FilterChainMatch."""
        out: Json = {}
        if self.http:
            out |= {"transport_protocol": "raw_buffer", "application_protocols": envoy.PLAIN_HTTP}
        if self.sni and "*" not in self.sni:
            out["server_names"] = sorted(self.sni)
        ranges = [_cidr(c) for c in sorted(self.cidrs) if not c.startswith(WILDCARD)]
        return out | ({"prefix_ranges": ranges} if ranges else {})


class Entry(msgspec.Struct):
    """A listener to be."""

    bind: str
    port: int
    bound: bool
    chains: list[Chain]
    protocol: str
    locked: bool = False


def _cidr(value: str) -> Json:
    ip, _, length = value.partition("/")
    return {"address_prefix": ip, "prefix_len": int(length or (128 if ":" in ip else 32))}


class Builder:
    """Collects one proxy's outbound listeners (buildSidecarOutboundListeners)."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.world, self.scope = proxy, proxy.world, proxy.scope
        self.entries: dict[tuple[str, int], Entry] = {}

    def listeners(self) -> list[Json]:
        """All outbound listeners, the virtual one last."""
        for listener in self.scope.listeners:
            if str((listener.declared.get("port") or {}).get("protocol", "")).lower() == "http_proxy":
                continue  # explicit HTTP proxies are not translated
            bound = self.proxy.interception == "NONE" or listener.declared.get("captureMode") == "NONE"
            given = listener.declared.get("bind")
            bind = given or (LOCAL[0] if bound else "")
            if listener.port:
                declared = listener.declared["port"]
                protocol = str(declared.get("protocol", "")).lower()
                port = Port(declared.get("name") or "", listener.port, protocol if protocol in HTTP | TCP else AUTO)
                for service in listener.services:
                    self._add(listener, service, port, bind, bound)
            else:
                for entry in self.entries.values():
                    entry.locked = True
                for service in listener.services:
                    for port in service.ports:
                        self._add_service_port(listener, service, port, bind, bound)
        out = [self._finish(e) for e in self.entries.values()]
        return out if self.proxy.interception == "NONE" else [*out, self._virtual()]

    def _add_service_port(self, listener: Listener, service: Service, port: Port, bind: str, bound: bool) -> None:
        reserved = (15001, 15006, 15021, 15090)
        if port.number in reserved and (bind == WILDCARD if bind else port.protocol in HTTP):
            return
        tcp = port.protocol in TCP or port.protocol == AUTO
        if bind or not tcp or service.resolution != "PASSTHROUGH" or service.addresses[0] != WILDCARD:
            self._add(listener, service, port, bind, bound)
            return
        endpoints = self.world.instances(service, port.number)
        if not service.kubernetes and not endpoints and not service.selector:
            self._add(listener, service, port, bind, bound)
            return
        for endpoint in endpoints:
            if hosts.is_ip(endpoint.address):
                self._add(listener, service, port, endpoint.address, bound)

    def _add(self, listener: Listener, service: Service, port: Port, bind: str, bound: bool) -> None:
        """buildSidecarOutboundListener: makes the chains, and settles who shares a listener with whom."""
        if service.resolution == "ALIAS" or port.protocol == "udp":
            return
        cidrs: tuple[str, ...] = ()
        if port.protocol in HTTP:
            bind = bind or WILDCARD
        elif not bind:
            bind = service.addresses[0]
            if "/" in bind:
                bind, cidrs = WILDCARD, service.addresses
        known = self.entries.get((bind, port.number))
        if known is not None and known.locked:
            return
        protocol = port.protocol
        if port.protocol in HTTP:
            if known is not None and known.protocol not in TCP:
                return
            chains = [self._http(port.number, sniffed=bind == WILDCARD)]
            protocol = AUTO if bind == WILDCARD else port.protocol
        elif port.protocol in TCP:
            chains = self._tcp(listener, service, port, bind, cidrs)
        else:
            chains = self._tcp(listener, service, port, bind, cidrs)
            if known is None or known.protocol != AUTO:
                chains.append(self._http(port.number, sniffed=True, host="" if bind == WILDCARD else service.hostname))
        if known is None:
            self.entries[bind, port.number] = Entry(bind, port.number, bound, chains, protocol)
            return
        unsniffable = {"mongo", "mysql"} & {port.protocol, known.protocol}
        if unsniffable and port.protocol != known.protocol:
            return
        if port.protocol == AUTO and known.protocol in HTTP:
            self.entries[bind, port.number] = Entry(bind, port.number, bound, chains, protocol)
            return
        for chain in chains:
            if all(chain.key != other.key for other in known.chains):
                known.chains.append(chain)
        if (
            (port.protocol in HTTP)
            or (port.protocol in TCP and known.protocol in HTTP)
            or (port.protocol == AUTO and known.protocol in TCP)
        ):
            known.protocol = AUTO

    def _http(self, port: int, sniffed: bool, host: str = "") -> Chain:
        return Chain(
            http=sniffed,
            build=lambda name: filters.outbound_http(self.proxy, name, routes.for_listener(self.proxy, port, host)),
        )

    def _tcp(self, listener: Listener, service: Service, port: Port, bind: str, cidrs: tuple[str, ...]) -> list[Chain]:
        mine = [
            v for v in listener.virtual_services if any(hosts.matches(h, service.hostname) for h in spec(v)["hosts"])
        ]
        return (self._tls_chains if port.protocol in TLS else self._tcp_chains)(mine, service, port, bind, cidrs)

    def _tls_chains(
        self, virtual: list[Obj], service: Service, port: Port, bind: str, cidrs: tuple[str, ...]
    ) -> list[Chain]:
        """buildSidecarOutboundTLSFilterChainOpts."""
        out: list[Chain] = []
        seen: set[tuple[str, ...]] = set()
        for v in virtual:
            for entry in spec(v).get("tls") or []:
                for match in entry.get("match") or []:
                    if not entry.get("route") or not self._applies(match, port.number):
                        continue
                    cidrs = tuple(match.get("destinationSubnets") or ()) or cidrs
                    key = (*(match.get("sniHosts") or ()), "|", *(match.get("destinationSubnets") or ()))
                    if key not in seen:
                        seen.add(key)
                        out.append(self._to(entry["route"], port, v, cidrs, tuple(match.get("sniHosts") or ())))
        if out:
            return out
        address = "" if "/" in service.addresses[0] else service.addresses[0]
        sni: tuple[str, ...] = ()
        if cidrs or not address or (address == WILDCARD and bind == WILDCARD):
            names = [service.hostname]
            for alias in self.world.aliases(service.hostname):
                names += [alias, *hosts.alternatives(alias, self.scope.domain)]
            sni = tuple(names)
        return [self._default(service, port, cidrs, sni)]

    def _tcp_chains(
        self, virtual: list[Obj], service: Service, port: Port, bind: str, cidrs: tuple[str, ...]
    ) -> list[Chain]:
        """buildSidecarOutboundTCPFilterChainOpts."""
        out: list[Chain] = []
        settled = False
        for v in virtual:
            for entry in spec(v).get("tcp") or []:
                if not entry.get("route"):
                    continue
                subnets: list[str] = []
                for match in entry.get("match") or [{}]:
                    if not self._applies(match, port.number):
                        continue
                    if not match.get("destinationSubnets"):
                        return [*out, self._to(entry["route"], port, v, cidrs)]
                    subnets += match["destinationSubnets"]
                if subnets:
                    out.append(self._to(entry["route"], port, v, tuple(subnets)))
                    settled |= sorted(subnets) == sorted(cidrs)
        return out if settled else [*out, self._default(service, port, cidrs)]

    def _applies(self, match: Obj, port: int) -> bool:
        """matchTLS, matchTCP."""
        gateways = match.get("gateways") or ["mesh"]
        return (
            "mesh" in gateways
            and hosts.labels_match(match.get("sourceLabels"), self.proxy.labels)
            and (match.get("port") or port) == port
            and (match.get("sourceNamespace") or namespace_of(self.proxy.pod)) == namespace_of(self.proxy.pod)
        )

    def _default(self, service: Service, port: Port, cidrs: tuple[str, ...], sni: tuple[str, ...] = ()) -> Chain:
        number = service.ports[0].number if len(service.ports) == 1 else port.number
        cluster = envoy.outbound(service.hostname, number)
        return Chain(build=lambda _: filters.outbound_tcp(self.proxy, cluster), cidrs=cidrs, sni=sni)

    def _to(
        self, destinations: list[Obj], port: Port, virtual: Obj, cidrs: tuple[str, ...], sni: tuple[str, ...] = ()
    ) -> Chain:
        def cluster(destination: Obj) -> str:
            return routes.destination_cluster(
                destination, self.scope.services.get(destination.get("host", "")), port.number
            )

        if len(destinations) == 1:
            only = cluster(destinations[0]["destination"])
            return Chain(build=lambda _: filters.outbound_tcp(self.proxy, only), cidrs=cidrs, sni=sni)
        weighted = [{"name": cluster(d["destination"]), "weight": d["weight"]} for d in destinations if d.get("weight")]
        prefix = f"{virtual['metadata']['name']}.{namespace_of(virtual)}"
        return Chain(build=lambda _: filters.outbound_tcp(self.proxy, "", weighted, prefix), cidrs=cidrs, sni=sni)

    def _finish(self, entry: Entry) -> Json:
        """buildListenerFromEntry."""
        name = envoy.listener_name(entry.bind, entry.port)
        out: Json = {
            "name": name,
            "address": envoy.address(entry.bind, entry.port),
            "traffic_direction": "OUTBOUND",
            "continue_on_listener_filters_timeout": True,
            "listener_filters_timeout": "0s",
            "listener_filters": [],
            "filter_chains": [],
        }
        if not entry.bound:
            out["bind_to_port"] = False
        if any(c.sni for c in entry.chains):
            out["listener_filters"].append(TLS_INSPECTOR)
        if any(c.http for c in entry.chains):
            out["listener_filters"].append(HTTP_INSPECTOR)
            out["listener_filters_timeout"] = self.world.mesh.get("protocolDetectionTimeout") or "0s"
        for chain in entry.chains:
            built: Json = {"filters": chain.build(name)}
            if chain.takes_all:
                out["default_filter_chain"] = built
            else:
                out["filter_chains"].append({"filter_chain_match": chain.match(), **built})
        if not out["filter_chains"]:
            out["filter_chains"] = [out.pop("default_filter_chain")]
        elif "default_filter_chain" not in out:
            out["default_filter_chain"] = {"name": "PassthroughFilterChain", "filters": self._unclaimed()}
        return out

    def _unclaimed(self) -> list[Json]:
        return filters.outbound_tcp(self.proxy, self.scope.unclaimed)

    def _virtual(self) -> Json:
        loop: Json = {
            "name": "virtualOutbound-blackhole",
            "filters": [filters.blackhole()],
            "filter_chain_match": {"destination_port": envoy.OUTBOUND_PORT},
        }
        rest: Json = {"name": "virtualOutbound-catchall-tcp", "filters": self._unclaimed()}
        return {
            "name": "virtualOutbound",
            "address": envoy.address(WILDCARD, envoy.OUTBOUND_PORT),
            "use_original_dst": True,
            "traffic_direction": "OUTBOUND",
            "filter_chains": [loop, rest],
            "access_log": self.proxy.logs.listener("outbound"),
        }

"""The client's proxy: from an address and a port to the clusters that the connection ends in.

1. A TCP or detected port of a service with an address gets a listener at that address; HTTP ports share one for all addresses
   and tell services apart by the Host header; a service without address gets one listener for each endpoint.
2. Services that meet on one listener merge: the first keeps the plain TCP chain, HTTP beside TCP means detection; MySQL and
   Mongo never share. Listeners named by a Sidecar shut out all others on their port.
3. What no listener and no route knows passes through in plaintext under ALLOW_ANY, and is dropped under REGISTRY_ONLY.

(buildSidecarOutboundListeners in pilot/pkg/networking/core/listener.go; tls.go; httproute.go.)
"""

from collections.abc import Iterable, Mapping

import msgspec

from meshtls.policy.because import Because
from meshtls.policy.routes import Target, Virtual, applies_l4, first_route
from meshtls.policy.scope import Listener, Scope
from meshtls.policy.select import fqdn, host_overlaps, is_wild
from meshtls.policy.service import ANY, AUTO, HTTP, PASSTHROUGH, TCP, TLS, UDP, Host, Port

RESERVED = frozenset({15001, 15006, 15021, 15090})


class Cluster(msgspec.Struct, frozen=True, gc=False):
    """Where a connection goes: a service's host, subset and port."""

    host: str
    subset: str
    port: int


class Path(msgspec.Struct, frozen=True, gc=False):
    """How a call leaves: to `clusters`, or passed through unknown (`passthrough`), or nowhere (neither)."""

    clusters: tuple[Cluster, ...] = ()
    passthrough: bool = False
    because: tuple[Because, ...] = ()


class Chain(msgspec.Struct, frozen=True, gc=False):
    """A filter chain: what it matches and where it leads. `http` chains ask the routes; others have their clusters.

    `sniffed`: an http chain is for bytes that look like HTTP; otherwise it takes whatever comes.
    """

    http: bool
    sniffed: bool = True
    cidrs: tuple[str, ...] = ()
    snis: tuple[str, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    because: Because | None = None
    route_for: str = ""

    @property
    def takes_all(self) -> bool:
        """Whether nothing narrows it; what no other chain takes then ends here."""
        return not self.cidrs and (not self.snis or "*" in self.snis) and not (self.http and self.sniffed)

    def conflicts(self, other: "Chain") -> bool:
        return (
            (self.http and self.sniffed) == (other.http and other.sniffed)
            and set(self.snis) - {"*"} == set(other.snis) - {"*"}
            and set(self.cidrs) - {ANY} == set(other.cidrs) - {ANY}
        )


class _Entry:
    """A listener under construction; `protocol` is the wire's as it stands after merging."""

    def __init__(self, protocol: str, chains: list[Chain]) -> None:
        self.protocol, self.chains, self.locked = protocol, chains, False


class Outbound:
    """The listeners and routes of the proxies that share a scope and the labels that its VirtualServices look at."""

    def __init__(self, scope: Scope, labels: Mapping[str, str]) -> None:
        self.scope, self.labels = scope, labels
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._speakers: dict[int, tuple[dict[str, list[int]], list[int]]] = {}
        self._on_port: dict[tuple[int, int], dict[str, tuple[Host, Port]]] = {}
        for listener in scope.listeners:
            if listener.port is not None:
                for host in listener.hosts:
                    port = Port(listener.protocol, listener.port, listener.protocol)
                    self._add(listener, host, port, listener.bind)
                continue
            for entry in self._entries.values():
                entry.locked = True
            for host in listener.hosts:
                for port in host.ports:
                    self._service(listener, host, port)

    def _service(self, listener: Listener, host: Host, port: Port) -> None:
        headless = not listener.bind and host.resolution == PASSTHROUGH and host.address == ANY
        if not headless or port.protocol in HTTP or port.protocol == UDP:
            self._add(listener, host, port, listener.bind)
            return
        endpoints = self.scope.registry.instances(host, port.number)
        if not host.kubernetes and not endpoints and not host.selector:
            self._add(listener, host, port, ANY)
            return
        for endpoint in endpoints:
            self._add(listener, host, port, endpoint.address)

    def _add(self, listener: Listener, host: Host, port: Port, bind: str) -> None:
        if host.resolution == "ALIAS" or port.protocol == UDP:
            return
        if port.number in RESERVED and (bind == ANY or (not bind and port.protocol in HTTP)):
            return
        cidrs: tuple[str, ...] = ()
        http = port.protocol in HTTP
        if not bind:
            bind = ANY if http or "/" in host.address else host.address
            if not http and "/" in host.address:
                cidrs = (host.address,)
        key = (bind, port.number)
        entry = self._entries.get(key)
        if entry is not None and entry.locked:
            return
        if port.protocol == "HTTP_PROXY":
            self._entries[key] = _Entry(port.protocol, [Chain(http=True)])
            return
        if http:
            if entry is not None and entry.protocol not in TCP:
                return
            chains = [Chain(http=True, sniffed=bind == ANY)]
        else:
            chains = self._tcp(listener, host, port, bind, cidrs)
            if port.protocol == AUTO and (entry is None or entry.protocol in TCP or entry.protocol in HTTP):
                chains.append(Chain(http=True, route_for=host.hostname if bind != ANY else ""))
        if entry is None:
            self._entries[key] = _Entry(AUTO if http and bind == ANY else port.protocol, chains)
            return
        if {"Mongo", "MySQL"} & {port.protocol, entry.protocol} and port.protocol != entry.protocol:
            return
        if port.protocol == AUTO and entry.protocol in HTTP:
            self._entries[key] = _Entry(AUTO, chains)
            return
        for chain in chains:
            if not any(chain.conflicts(have) for have in entry.chains):
                entry.chains.append(chain)
        if http or entry.protocol in HTTP or port.protocol == AUTO:
            entry.protocol = AUTO

    def _tcp(
        self, listener: Listener, host: Host, port: Port, bind: str, cidrs: tuple[str, ...]
    ) -> list[Chain]:
        own = [vs for vs in self._speaking(listener, host.hostname) if any(host_overlaps(h, host.hostname) for h in vs.hosts)]
        number = host.ports[0].number if len(host.ports) == 1 else port.number
        default = (Cluster(host.hostname, "", number),)
        if port.protocol in TLS:
            chains = self._tls_routes(own, port, cidrs)
            if not chains:
                address = "" if "/" in host.address else host.address
                by_name = bool(cidrs) or not address or (address == ANY and bind == ANY)
                chains = [Chain(http=False, cidrs=cidrs, snis=(host.hostname,) if by_name else (), clusters=default)]
            return chains
        chains = []
        for vs in own:
            for index, route in enumerate(vs.tcp):
                if not route.route:
                    continue
                says = Because(vs.ref, _l4_path(vs, "tcp", index), f"routes TCP on port {port.number}")
                clusters = self._targets(vs.targets(route.route), port.number)
                fitting = [m for m in route.match if applies_l4(m, port.number, self.labels, self.scope.namespace)]
                if not route.match or any(not m.destination_subnets for m in fitting):
                    chains.append(Chain(http=False, cidrs=cidrs, clusters=clusters, because=says))
                    return chains
                subnets = tuple(s for m in fitting for s in m.destination_subnets)
                if subnets:
                    chains.append(Chain(http=False, cidrs=subnets, clusters=clusters, because=says))
        chains.append(Chain(http=False, cidrs=cidrs, clusters=default))
        return chains

    def _tls_routes(self, own: list[Virtual], port: Port, cidrs: tuple[str, ...]) -> list[Chain]:
        chains: list[Chain] = []
        handled: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        for vs in own:
            for index, route in enumerate(vs.tls):
                for match in route.match if route.route else ():
                    if not applies_l4(match, port.number, self.labels, self.scope.namespace):
                        continue
                    cidrs = match.destination_subnets or cidrs  # they stay for the matches that follow
                    key = (match.sni_hosts, match.destination_subnets)
                    if key not in handled:
                        handled.add(key)
                        says = Because(vs.ref, _l4_path(vs, "tls", index), f"routes TLS on port {port.number}")
                        clusters = self._targets(vs.targets(route.route), port.number)
                        chains.append(Chain(http=False, cidrs=cidrs, snis=match.sni_hosts, clusters=clusters, because=says))
        return chains

    def _targets(self, targets: tuple[Target, ...], listen: int, http: bool = False) -> tuple[Cluster, ...]:
        found = []
        for t in targets:
            if len(targets) > 1 and not t.weight:
                continue
            host = self.scope.by_host.get(t.host)
            name = host.alias_of if host is not None and host.alias_of else t.host
            port = t.port or listen
            if not t.port and host is not None and len(host.ports) == 1 and not http:
                port = host.ports[0].number
            found.append(Cluster(name, t.subset, port))
        return tuple(found)

    def call(self, address: str, port: int, host: str, speaks: str) -> Path:
        """The path of a connection to `address:port`; `speaks` is http (with this Host), tcp, or tls (with this SNI)."""
        entry = self._entries.get((address, port)) or self._entries.get((ANY, port))
        if entry is None:
            return self._unknown(f"no listener knows port {port} at this address")
        chain = _choose(entry.chains, address, host, speaks)
        if chain is None:
            chain = next((c for c in entry.chains if c.takes_all), None)
        if chain is None:
            return self._unknown(f"nothing on port {port} takes what is not HTTP")
        if chain.http and speaks != "http":
            says = f"the listener of port {port} takes HTTP only: the client's own proxy drops everything else"
            return Path(because=(Because("", "", says),))
        if chain.http:
            return self._route(chain.route_for or host, port, bool(chain.route_for))
        return Path(clusters=chain.clusters, because=(chain.because,) if chain.because else ())

    def _unknown(self, why: str) -> Path:
        sidecar = self.scope.sidecar
        ref = sidecar.ref if sidecar and sidecar.spec.outbound_traffic_policy else self.scope.registry.config.ref
        path = "spec.outboundTrafficPolicy" if sidecar and sidecar.spec.outbound_traffic_policy else "outboundTrafficPolicy"
        if not self.scope.allow_any:
            return Path(because=(Because(ref, path, f"REGISTRY_ONLY, and {why}: the client's own proxy drops it"),))
        proxy = self.scope.outbound.egress_proxy
        if proxy is not None:
            cluster = Cluster(fqdn(proxy.host, self.scope.namespace, "cluster.local"), proxy.subset, proxy.port.number if proxy.port else 0)
            return Path(clusters=(cluster,), because=(Because(ref, path, f"{why}: it goes to the egress proxy"),))
        scoped = (Because(sidecar.ref, "spec.egress", "the client's Sidecar decides what is known"),) if sidecar else ()
        return Path(passthrough=True, because=(*scoped, Because("", "", f"{why}: it passes through as it is, in plaintext")))

    def _route(self, host: str, port: int, only: bool) -> Path:
        """The virtual host for `host` on a port, and the first route that takes the request; `only` its routes exist."""
        listener = self.scope.for_port(port)
        if listener is None:
            return Path(because=(Because("", "", f"no routes for port {port}"),))
        offered = self._offered(listener, port)
        if host not in offered:  # a service's address names it, too
            host = next((name for name, (service, _) in offered.items() if service.address == host), host)
        claimed: set[str] = set()
        wildcard: tuple[str, Virtual] | None = None
        for vs in self._speaking(listener, host):
            some, route = first_route(vs, host, port, self.labels, self.scope.namespace)
            if not some:
                continue
            mine, others = self._claims(vs, listener, offered)
            if vs.gateway_semantics and self.scope.namespace != vs.namespace and not any(offered[h][0].namespace == vs.namespace for h in mine):
                continue
            if vs.gateway_semantics and not mine:
                continue
            served = [h for h in mine if offered[h][1].protocol in HTTP or offered[h][1].protocol == AUTO]
            if not served and port != 80:
                continue
            if host in claimed:
                break
            for name in (*others, *served):
                if name == host:
                    return self._by_route(vs, route, host, port)
                if is_wild(name) and host.endswith(name[1:]) and (wildcard is None or len(name) > len(wildcard[0])):
                    wildcard = (name, vs)
            claimed.update(served)
        own = offered.get(host)
        if own is not None and host not in claimed and (own[1].protocol in HTTP or own[1].protocol == AUTO):
            service = own[0]
            if service.resolution != "ALIAS":
                return Path(clusters=(Cluster(host, "", port),))
            if service.alias_of in offered:
                return Path(clusters=(Cluster(service.alias_of, "", port),))
        if wildcard is not None:
            return self._by_route(wildcard[1], first_route(wildcard[1], host, port, self.labels, self.scope.namespace)[1], host, port)
        if only:
            return Path(because=(Because("", "", f"no route for {host} on port {port}"),))
        return self._unknown(f"no service answers to {host} on port {port}")

    def _speaking(self, listener: Listener, host: str) -> Iterable[Virtual]:
        """The VirtualServices that may speak of a host, in their order: those that name it, and those with wildcards."""
        if is_wild(host):
            return listener.virtual
        found = self._speakers.get(id(listener))
        if found is None:
            exact: dict[str, list[int]] = {}
            wild: list[int] = []
            for number, vs in enumerate(listener.virtual):
                names = {name.lower() for name in vs.hosts}
                if any(map(is_wild, names)):
                    wild.append(number)
                else:
                    for name in names:
                        exact.setdefault(name, []).append(number)
            found = self._speakers[id(listener)] = (exact, wild)
        return (listener.virtual[number] for number in sorted((*found[0].get(host.lower(), ()), *found[1])))

    def _offered(self, listener: Listener, port: int) -> dict[str, tuple[Host, Port]]:
        """host name -> (service, its port) of the services that a listener has on a port; of several the last."""
        key = (id(listener), port)
        found = self._on_port.get(key)
        if found is None:
            for host in listener.hosts:
                for each in host.ports:
                    self._on_port.setdefault((id(listener), each.number), {})[host.hostname] = (host, each)
            found = self._on_port.setdefault(key, {})
        return found

    def _claims(
        self, vs: Virtual, listener: Listener, offered: dict[str, tuple[Host, Port]]
    ) -> tuple[list[str], list[str]]:
        """(services of this port that a VirtualService speaks for, hosts of it that are no services)."""
        mine: list[str] = []
        others: list[str] = []
        for name in vs.hosts:
            name = name.lower()
            if not is_wild(name) or vs.gateway_semantics:
                (mine if name in offered and not is_wild(name) else others).append(name)
                continue
            fitting = [h for h in offered if host_overlaps(h, name)]
            mine.extend(h for h in fitting if self.scope.owner_of(listener, h) is vs)
            if not fitting:
                others.append(name)
        return mine, others

    def _by_route(self, vs: Virtual, route: object, host: str, port: int) -> Path:
        from meshtls.model.objects import HttpRoute

        if route is None:
            return Path(because=(Because(vs.ref, "spec.rules" if vs.gateway_semantics else "spec.http", f"no route takes a plain request to {host}:{port}"),))
        assert isinstance(route, HttpRoute)
        ref, path = vs.written[vs.http.index(route)] if vs.written else (vs.ref, f"spec.http[{vs.http.index(route)}]" if route in vs.http else "spec.http")
        if route.redirect is not None or route.direct_response is not None or not route.route:
            return Path(because=(Because(ref, path, "the client's own proxy answers: no destination"),))
        clusters = self._targets(vs.targets(route.route), port, http=True)
        return Path(clusters=clusters, because=(Because(ref, path, f"routes {host}:{port}"),))


def _l4_path(vs: Virtual, layer: str, index: int) -> str:
    return f"spec.rules[{index}]" if vs.gateway_semantics else f"spec.{layer}[{index}]"


def _choose(chains: list[Chain], address: str, sni: str, speaks: str) -> Chain | None:
    """Envoy's order: destination address, SNI, then protocol; None means that only the pass-through chain is left."""
    import ipaddress

    if len(chains) == 1 and not chains[0].cidrs and not chains[0].snis and not chains[0].http:
        return chains[0]
    rest = list(chains)
    if any(c.cidrs for c in rest):
        try:
            ip = ipaddress.ip_address(address)
            hits = {
                i: max((n.prefixlen for n in map(_network, c.cidrs) if n and ip.version == n.version and ip in n), default=-1)
                for i, c in enumerate(rest)
            }
        except ValueError:
            hits = dict.fromkeys(range(len(rest)), -1)
        best = max(hits.values())
        rest = [c for i, c in enumerate(rest) if (hits[i] == best if best >= 0 else not c.cidrs)]
    if any(c.snis for c in rest):
        named = [c for c in rest if speaks == "tls" and any(host_overlaps(s, sni) for s in c.snis)]
        exact = [c for c in named if sni in c.snis]
        rest = exact or named or [c for c in rest if not c.snis]
    http = [c for c in rest if c.http]
    if speaks == "http" and http:
        return http[0]
    plain = [c for c in rest if not (c.http and c.sniffed)]
    return plain[0] if plain else None


def _network(cidr: str):  # type: ignore[no-untyped-def]
    import ipaddress

    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None

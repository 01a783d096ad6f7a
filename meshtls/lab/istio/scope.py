"""Which services and virtual services a proxy sees: the Sidecar that applies, cut into egress listeners
(pilot/pkg/model sidecar.go).

A Sidecar with a selector goes before one without, the oldest first; then the root namespace's, then everything that is
exported. Proxies under the same Sidecar in the same namespace share one Scope.
"""

from collections.abc import Iterable
from functools import cached_property

import msgspec

from meshtls.lab.istio import destinationrule, envoy, hosts
from meshtls.lab.istio.objects import DOMAIN, Obj, Service, age, labels, namespace_of, spec
from meshtls.lab.istio.virtualservice import exported_to, virtual_services
from meshtls.lab.istio.world import World

IMPORT_ALL: Obj = {"hosts": ["*/*"]}


class Listener(msgspec.Struct, frozen=True):
    """One egress listener: its declaration, and what it imports. `port` 0 is the catch-all."""

    declared: Obj
    port: int
    services: tuple[Service, ...]
    virtual_services: tuple[Obj, ...]
    wildcard_index: dict[str, str]


class Scope:
    """What all proxies of a namespace under one Sidecar share."""

    def __init__(self, world: World, namespace: str, sidecar: Obj | None) -> None:
        self.world, self.namespace = world, namespace
        self.body = spec(sidecar) if sidecar else {}
        self.domain = f"{namespace}.svc.{DOMAIN}"

    @property
    def ingress(self) -> list[Obj]:
        """The Sidecar's inbound listeners."""
        return self.body.get("ingress") or []

    @property
    def allow_any(self) -> bool:
        """Whether traffic to unknown destinations passes (outboundTrafficPolicy)."""
        policy = self.body.get("outboundTrafficPolicy")
        if policy is None:
            policy = self.world.mesh.get("outboundTrafficPolicy") or {"mode": "ALLOW_ANY"}
        return bool(policy.get("mode", "REGISTRY_ONLY") != "REGISTRY_ONLY")

    @property
    def unclaimed(self) -> str:
        """The cluster for what no service claims: passed through, to the Sidecar's egress proxy, or into nothing."""
        proxy = (self.body.get("outboundTrafficPolicy") or {}).get("egressProxy")
        if not self.allow_any:
            return envoy.BLACKHOLE
        if not proxy:
            return envoy.PASSTHROUGH
        return envoy.outbound(proxy["host"], (proxy.get("port") or {}).get("number") or 0, proxy.get("subset") or "")

    @cached_property
    def listeners(self) -> list[Listener]:
        """The egress listeners, in order; the catch-all is the last."""
        return [self._listener(e) for e in self.body.get("egress") or [IMPORT_ALL]]

    @cached_property
    def services(self) -> dict[str, Service]:
        """Every imported service by host: asked for, or the destination of an imported virtual service."""
        found: dict[str, Service] = {}
        for listener in self.listeners:
            for service in listener.services:
                _add(found, service)
            for virtual in listener.virtual_services:
                for host, ports in _destinations(virtual, self.namespace).items():
                    chosen = self._choose(host)
                    if listener.port:
                        ports = {listener.port}
                    kept = tuple(p for p in chosen.ports if not ports or p.number in ports) if chosen else ()
                    if chosen and kept:
                        _add(found, chosen if kept == chosen.ports else msgspec.structs.replace(chosen, ports=kept))
        return found

    @cached_property
    def policed(self) -> frozenset[str]:
        """The namespaces whose PeerAuthentications reach the proxy; elsewhere it takes ports for PERMISSIVE
        (selectAuthnPolicies)."""
        return frozenset({self.world.root_namespace, self.namespace, *(s.namespace for s in self.services.values())})

    @cached_property
    def rules(self) -> dict[str, list[destinationrule.Rule]]:
        """Host -> the destination rules that may apply to it."""
        index = destinationrule.index(self.world)
        return {h: index.lookup(self.namespace, s) for h, s in self.services.items()}

    def rule(self, host: str, pod_labels: dict[str, str]) -> Obj:
        """The destination rule's spec for a host as a pod with these labels calls it, {} without one."""
        found: Obj = {}
        for rule in self.rules.get(host, ()):
            selector = rule.selector
            if selector is None:
                found = rule.body
            elif rule.namespace == self.namespace and hosts.labels_match(selector, pod_labels):
                return rule.body
        return found

    def listener_for(self, port: int) -> Listener | None:
        """The egress listener whose services routes on this port may name (GetEgressListenerForRDS)."""
        return next((e for e in self.listeners if e.port in (0, port)), None)

    def _choose(self, host: str) -> Service | None:
        """A destination's service: in the own namespace, else a visible Kubernetes one, else the oldest visible."""
        candidates = self.world.by_hostname.get(host, {})
        if self.namespace in candidates:
            return candidates[self.namespace]
        seen = [s for s in candidates.values() if self.world.visible(s, self.namespace)]
        return min(seen, key=lambda s: (not s.kubernetes, s.created), default=None)

    def _listener(self, declared: Obj) -> Listener:
        wanted, excluded = _hosts(declared.get("hosts") or [], self.namespace)
        port = int((declared.get("port") or {}).get("number") or 0)
        services = []
        for service in self.world.exported_to(self.namespace):
            covered = any(
                hosts.subset_of(service.hostname, w) for ns in (service.namespace, "*") for w in wanted.get(ns, ())
            )
            barred = any(
                hosts.subset_of(service.hostname, x) for ns in (service.namespace, "*") for x in excluded.get(ns, ())
            )
            ports = tuple(p for p in service.ports if p.number == port)[:1] if port else service.ports
            if covered and not barred and (ports or not port):
                services.append(service if ports == service.ports else msgspec.structs.replace(service, ports=ports))
        services = _one_namespace_per_host(services, self.namespace)
        virtual = tuple(self._virtual_services(wanted, excluded))
        return Listener(declared, port, tuple(services), virtual, _wildcard_index(virtual, services))

    def _virtual_services(self, wanted: dict[str, list[str]], excluded: dict[str, list[str]]) -> Iterable[Obj]:
        """SelectVirtualServices: private ones, then those exported here by name, then the public ones."""
        groups: tuple[list[Obj], list[Obj], list[Obj]] = ([], [], [])
        for virtual in virtual_services(self.world):
            home, export = namespace_of(virtual), exported_to(self.world, virtual)
            if "*" in export:
                groups[2].append(virtual)
            elif "~" not in export and self.namespace in export:
                groups[0 if home == self.namespace else 1].append(virtual)
        for virtual in (v for group in groups for v in group):
            home = namespace_of(virtual)
            for host in spec(virtual).get("hosts") or []:
                covered = any(hosts.matches(host, w) for ns in (home, "*") for w in wanted.get(ns, ()))
                if covered and not any(hosts.subset_of(host, x) for ns in (home, "*") for x in excluded.get(ns, ())):
                    yield virtual
                    break


def scope(world: World, pod: Obj) -> Scope:
    """The Scope of a pod's proxy."""
    namespace, chosen = namespace_of(pod), None
    sidecars = sorted(world.kind("Sidecar"), key=lambda s: ("workloadSelector" not in spec(s), age(s)))
    for home, selectors in ((namespace, True), (world.root_namespace, False)):
        for sidecar in sidecars:
            selector = spec(sidecar).get("workloadSelector")
            fits = hosts.labels_match((selector or {}).get("labels"), labels(pod)) if selectors else selector is None
            if chosen is None and namespace_of(sidecar) == home and fits:
                chosen = sidecar
    key = ("scope", namespace, id(chosen))
    if key not in world.cache:
        world.cache[key] = Scope(world, namespace, chosen)
    found: Scope = world.cache[key]
    return found


def _hosts(declared: list[str], namespace: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """`ns/host` entries by namespace: wanted, and (with `~`) excluded."""
    wanted: dict[str, list[str]] = {}
    excluded: dict[str, list[str]] = {}
    for entry in declared:
        home, found, host = entry.partition("/")
        if not found or "/" in host:
            continue
        table = excluded if home.startswith("~") else wanted
        home = home.removeprefix("~") or "*"
        table.setdefault(namespace if home == "." else home, []).append(host)
    return wanted, excluded


def _one_namespace_per_host(services: list[Service], namespace: str) -> list[Service]:
    """One host, one namespace: the own one first, then a Kubernetes Service's, then the first seen."""
    chosen: dict[str, Service] = {}
    for service in services:
        known = chosen.get(service.hostname)
        prefer = known is None or service.namespace == namespace
        if prefer or (known and service.kubernetes and not known.kubernetes and known.namespace != namespace):
            chosen[service.hostname] = service
    return [s for s in services if chosen[s.hostname].namespace == s.namespace]


def _add(found: dict[str, Service], service: Service) -> None:
    """appendSidecarServices: the first keeps the host, Kubernetes beats others, equals join their ports."""
    known = found.get(service.hostname)
    if known is None or (service.kubernetes and not known.kubernetes):
        found[service.hostname] = service
    elif known.kubernetes == service.kubernetes and known.ports != service.ports and _mergeable(known, service):
        have = {p.number for p in known.ports}
        more = tuple(p for p in service.ports if p.number not in have)
        found[service.hostname] = msgspec.structs.replace(known, ports=known.ports + more)


def _mergeable(a: Service, b: Service) -> bool:
    same = (a.namespace, a.resolution, a.export_to, a.selector) == (b.namespace, b.resolution, b.export_to, b.selector)
    return same and labels(a.source) == labels(b.source)


def _destinations(virtual: Obj, namespace: str) -> dict[str, set[int]]:
    """Host -> ports that a virtual service may send this namespace's proxies to; an empty set is every port."""
    out: dict[str, set[int]] = {}
    body = spec(virtual)
    for kind in ("http", "tcp", "tls"):
        for route in body.get(kind) or []:
            sources = {m.get("sourceNamespace") for m in route.get("match") or []} - {None, ""}
            if kind == "http" and sources and namespace not in sources:
                continue
            mirrors = [m.get("destination") for m in route.get("mirrors") or []] + [route.get("mirror")]
            targets = [d.get("destination") for d in route.get("route") or []]
            for destination in filter(None, targets + mirrors):
                number = int((destination.get("port") or {}).get("number") or 0)
                out.setdefault(destination.get("host", ""), set()).add(number)
    return {h: set() if 0 in ports else ports for h, ports in out.items()}


def _wildcard_index(virtual: Iterable[Obj], services: Iterable[Service]) -> dict[str, str]:
    """Service host -> key of the virtual service whose host fits it most narrowly."""
    by_host: dict[str, str] = {}
    for v in virtual:
        for host in spec(v)["hosts"]:
            by_host.setdefault(host, vs_key(v))
    found = {s.hostname: hosts.most_specific(s.hostname, by_host) for s in services}
    return {h: key for h, key in found.items() if key}


def vs_key(virtual: Obj) -> str:
    """namespace/name."""
    return f"{namespace_of(virtual)}/{virtual['metadata']['name']}"

"""Which services and virtual services a proxy sees: the Sidecar that applies, cut into egress listeners
(pilot/pkg/model sidecar.go).

A Sidecar with a selector goes before one without, the oldest first; then the root namespace's, then everything that is
exported. Proxies under the same Sidecar in the same namespace share one Scope.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import chain
from typing import TypeVar

import msgspec

from meshtls.lab.istio import destinationrule, envoy, hosts
from meshtls.lab.istio.objects import DOMAIN, Obj, Port, Service, at, labels, namespace_of, spec
from meshtls.lab.istio.virtualservice import VirtualService, virtual_services
from meshtls.lab.istio.world import World

Seen = TypeVar("Seen", Service, VirtualService)
IMPORT_ALL: Obj = {"hosts": ["*/*"]}


class Listener(msgspec.Struct, frozen=True):
    """One egress listener: its declaration, and what it imports. `port` 0 is the catch-all."""

    declared: Obj
    port: int
    services: tuple[Service, ...]
    virtual_services: tuple[VirtualService, ...]
    by_host: dict[str, VirtualService]


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
    def unclaimed(self) -> str:
        """The cluster for what no service claims: passed through, to the Sidecar's egress proxy, or into nothing
        (outboundTrafficPolicy)."""
        own = self.body.get("outboundTrafficPolicy")
        policy = self.world.mesh.get("outboundTrafficPolicy") or {"mode": "ALLOW_ANY"} if own is None else own
        if policy.get("mode", "REGISTRY_ONLY") == "REGISTRY_ONLY":
            return envoy.BLACKHOLE
        proxy = at(own, "egressProxy")
        if not proxy:
            return envoy.PASSTHROUGH
        return envoy.outbound(proxy["host"], at(proxy, "port", "number") or 0, proxy.get("subset") or "")

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
                        _add(found, _cut(chosen, kept))
        return found

    @cached_property
    def policed(self) -> frozenset[str]:
        """The namespaces whose PeerAuthentications reach the proxy; elsewhere it takes ports for PERMISSIVE
        (selectAuthnPolicies)."""
        return frozenset({self.world.root_namespace, self.namespace, *(s.namespace for s in self.services.values())})

    @cached_property
    def rules(self) -> dict[str, list[destinationrule.Rule]]:
        """Host -> the destination rules that may apply to it."""
        return {h: destinationrule.lookup(self.world, self.namespace, s) for h, s in self.services.items()}

    def rule(self, host: str, pod_labels: dict[str, str]) -> Obj:
        """The destination rule's spec for a host as a pod with these labels calls it, {} without one."""
        found: Obj = {}
        for rule in self.rules.get(host, ()):
            if rule.selector is None:
                found = rule.body
            elif rule.namespace == self.namespace and hosts.labels_match(rule.selector, pod_labels):
                return rule.body
        return found

    def _choose(self, host: str) -> Service | None:
        """A destination's service: in the own namespace, else a visible Kubernetes one, else the oldest visible."""
        candidates = self.world.by_hostname.get(host, {})
        if self.namespace in candidates:
            return candidates[self.namespace]
        return min(self._visible(candidates.values()), key=lambda s: (not s.kubernetes, s.created), default=None)

    def _visible(self, items: Iterable[Seen]) -> list[Seen]:
        return [i for i in items if hosts.exported(i.export_to, i.namespace, self.namespace)]

    def _listener(self, declared: Obj) -> Listener:
        wanted, excluded = _hosts(declared.get("hosts") or [], self.namespace)
        port = int(at(declared, "port", "number") or 0)

        def imported(host: str, home: str, fits: Callable[[str, str], bool]) -> bool:
            named, barred = ((*t.get(home, ()), *t.get("*", ())) for t in (wanted, excluded))
            return any(fits(host, w) for w in named) and not any(hosts.subset_of(host, x) for x in barred)

        services = []
        for service in sorted(self._visible(self.world.services), key=lambda s: "*" in s.export_to):
            ports = tuple(p for p in service.ports if p.number == port)[:1] if port else service.ports
            if (ports or not port) and imported(service.hostname, service.namespace, hosts.subset_of):
                services.append(_cut(service, ports))
        visible = self._visible(virtual_services(self.world))  # private ones first, then those exported here by name
        visible.sort(key=lambda v: ("*" in v.export_to, v.namespace != self.namespace and "*" not in v.export_to))
        virtual = tuple(v for v in visible if any(imported(h, v.namespace, hosts.matches) for h in v.hosts))
        by_host = {h: v for v in reversed(virtual) for h in v.hosts}
        return Listener(declared, port, tuple(_one_namespace_per_host(services, self.namespace)), virtual, by_host)


def scope(world: World, pod: Obj) -> Scope:
    """The Scope of a pod's proxy."""
    namespace, root = namespace_of(pod), world.root_namespace
    sidecars = sorted(world.kind("Sidecar"), key=lambda s: spec(s).get("workloadSelector") is None)
    at_home = (s for s in sidecars if namespace_of(s) == namespace)
    own = (s for s in at_home if hosts.labels_match(at(spec(s), "workloadSelector", "labels"), labels(pod)))
    wide = (s for s in sidecars if namespace_of(s) == root and spec(s).get("workloadSelector") is None)
    chosen = next(chain(own, wide), None)
    return world.once(("scope", namespace, id(chosen)), Scope, world, namespace, chosen)


def _cut(service: Service, ports: tuple[Port, ...]) -> Service:
    return service if ports == service.ports else msgspec.structs.replace(service, ports=ports)


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


def _one_namespace_per_host(services: list[Service], namespace: str) -> Iterable[Service]:
    """One host, one namespace: the own one first, then a Kubernetes Service's, then the first seen."""
    chosen: dict[str, Service] = {}
    for service in sorted(services, key=lambda s: (s.namespace != namespace, not s.kubernetes)):
        chosen.setdefault(service.hostname, service)
    return (s for s in services if chosen[s.hostname].namespace == s.namespace)


def _add(found: dict[str, Service], service: Service) -> None:
    """appendSidecarServices: the first keeps the host, Kubernetes beats others, equals join their ports."""
    known = found.get(service.hostname)
    if known is None or (service.kubernetes and not known.kubernetes):
        found[service.hostname] = service
    elif known.kubernetes == service.kubernetes and known.ports != service.ports and _mergeable(known, service):
        have = {p.number for p in known.ports}
        found[service.hostname] = _cut(known, known.ports + tuple(p for p in service.ports if p.number not in have))


def _mergeable(a: Service, b: Service) -> bool:
    same = (a.namespace, a.resolution, a.export_to, a.selector) == (b.namespace, b.resolution, b.export_to, b.selector)
    return same and labels(a.source) == labels(b.source)


def _destinations(virtual: VirtualService, namespace: str) -> dict[str, set[int]]:
    """Host -> ports that a virtual service may send this namespace's proxies to; an empty set is every port."""
    out: dict[str, set[int]] = {}
    for kind, routes in virtual.routes.items():
        for route in routes:
            sources = {m.get("sourceNamespace") for m in route.get("match") or []} - {None, ""}
            if kind == "http" and sources and namespace not in sources:
                continue
            targets = [t.get("destination") for f in ("route", "mirrors") for t in route.get(f) or []]
            for destination in filter(None, [*targets, route.get("mirror")]):
                out.setdefault(destination.get("host", ""), set()).add(int(at(destination, "port", "number") or 0))
    return {h: set() if 0 in ports else ports for h, ports in out.items()}

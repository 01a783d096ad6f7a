"""What a client's proxy is told of the mesh: its Sidecar, and the services and VirtualServices which that lets in.

1. The oldest Sidecar whose selector matches, else the oldest without selector in the namespace, else the root namespace's;
   without one, everything that is exported to the namespace.
2. Each egress listener imports `namespace/host` pairs (`.` own, `*` any, `~` none; `~ns` excludes); a listener with a port
   imports only that port. Of one host in several namespaces the client's own wins, then Kubernetes' own, then the first.
3. Destinations of imported VirtualServices come along for clusters, even where no listener imports them.

(pilot/pkg/model/sidecar.go.)
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from meshtls.model.objects import OutboundTrafficPolicy, Sidecar, SidecarEgress
from meshtls.policy.registry import Registry
from meshtls.policy.routes import Virtual
from meshtls.policy.select import age, host_overlaps, host_within, is_wild, most_specific, subset
from meshtls.policy.service import Host, parse_protocol


class _Hosts:
    """The hosts that an egress listener names for one namespace (hostClassification)."""

    def __init__(self) -> None:
        self.exact: set[str] = set()
        self.wild: list[str] = []
        self.excluded: list[str] = []

    def matches(self, host: str) -> bool:
        if host in self.exact:
            return True
        return any(host_within(host, w) for w in self.wild) or (
            is_wild(host) and any(host_within(host, e) for e in self.exact)
        )

    def matches_virtual(self, host: str, strict: bool) -> bool:
        if host in self.exact:
            return True
        test = host_within if strict else host_overlaps
        return any(test(host, w) for w in self.wild) or (is_wild(host) and any(test(host, e) for e in self.exact))

    def excludes(self, host: str) -> bool:
        return any(host_within(host, e) for e in self.excluded)


class Listener(msgspec.Struct, frozen=True):
    """One egress listener: `port` None catches every port that no earlier one names."""

    port: int | None
    protocol: str
    bind: str
    hosts: tuple[Host, ...]
    virtual: tuple[Virtual, ...]


class Scope:
    """Everything a proxy of one namespace and Sidecar knows. `sidecar` is None where none applies."""

    def __init__(
        self, registry: Registry, virtual: Iterable[Virtual], namespace: str, sidecar: Sidecar | None, mesh_policy: OutboundTrafficPolicy
    ) -> None:
        self.registry, self.namespace, self.sidecar = registry, namespace, sidecar
        self._virtual = _visible(virtual, namespace)
        own = sidecar.spec.outbound_traffic_policy if sidecar else None
        self.outbound = own or mesh_policy
        # a policy that is written without a mode has the first value of the enumeration, REGISTRY_ONLY
        self.allow_any = (self.outbound.mode or ("REGISTRY_ONLY" if own else "ALLOW_ANY")).startswith("ALLOW_ANY")
        egress = (sidecar.spec.egress if sidecar else ()) or (SidecarEgress(hosts=("*/*",)),)
        self.listeners = tuple(self._listener(e) for e in egress)

    def _listener(self, egress: SidecarEgress) -> Listener:
        by_namespace: dict[str, _Hosts] = {}
        for entry in egress.hosts:
            namespace, slash, name = entry.partition("/")
            if not slash or "/" in name:
                continue
            excluded = namespace.startswith("~")
            if excluded:
                namespace = namespace[1:] or "*"
            if namespace == ".":
                namespace = self.namespace
            hosts = by_namespace.setdefault(namespace, _Hosts())
            if excluded:
                hosts.excluded.append(name)
            elif is_wild(name):
                hosts.wild.append(name)
            else:
                hosts.exact.add(name)
        port = egress.port.number if egress.port and egress.port.number else None
        protocol = parse_protocol(egress.port.protocol) if egress.port else ""
        return Listener(
            port=port,
            protocol=protocol,
            bind=egress.bind or ("127.0.0.1" if egress.capture_mode == "NONE" else ""),
            hosts=self._hosts(by_namespace, port if protocol != "HTTP_PROXY" else None),
            virtual=self._select_virtual(by_namespace),
        )

    def _hosts(self, by_namespace: dict[str, _Hosts], port: int | None) -> tuple[Host, ...]:
        anywhere = by_namespace.get("*")
        if anywhere is None and not any(hosts.wild for hosts in by_namespace.values()):
            visible = self._looked_up(by_namespace)
        else:
            visible = self.registry.visible(self.namespace)
        if set(by_namespace) == {"*"} and port is None and anywhere and "*" in anywhere.wild and not anywhere.excluded:
            imported = list(visible)
        else:
            imported = []
            for host in visible:
                own = by_namespace.get(host.namespace)
                if (own and own.excludes(host.hostname)) or (anywhere and anywhere.excludes(host.hostname)):
                    continue
                if not (own and own.matches(host.hostname)) and not (anywhere and anywhere.matches(host.hostname)):
                    continue
                trimmed = _trim(host, {port}) if port is not None else host
                if trimmed is not None:
                    imported.append(trimmed)
        chosen: dict[str, Host] = {}
        mixed = False
        for host in imported:
            have = chosen.get(host.hostname)
            if have is None:
                chosen[host.hostname] = host
            elif have.namespace != host.namespace:
                mixed = True
                better = not have.kubernetes and host.kubernetes and have.namespace != self.namespace
                if host.namespace == self.namespace or better:
                    chosen[host.hostname] = host
        if not mixed:
            return tuple(imported)
        return tuple(h for h in imported if chosen[h.hostname].namespace == h.namespace)

    def _looked_up(self, by_namespace: dict[str, _Hosts]) -> tuple[Host, ...]:
        """The services of hosts that are all written out: one for each, a ServiceEntry beside a Service is not seen (servicesForExactHosts)."""
        named = (self.registry.by_name.get(name, {}).get(namespace) for namespace, hosts in by_namespace.items() for name in hosts.exact)
        seen = {id(host): host for host in named if host is not None and self.registry.is_visible(host, self.namespace)}
        return tuple(sorted(seen.values(), key=lambda h: (h.created, h.name, h.namespace)))

    def _select_virtual(self, by_namespace: dict[str, _Hosts]) -> tuple[Virtual, ...]:
        anywhere = by_namespace.get("*")
        found = []
        for vs in self._virtual:
            own = by_namespace.get(vs.namespace)
            for hosts in (own, anywhere):
                if hosts is not None and any(
                    hosts.matches_virtual(h, vs.gateway_semantics)
                    and not (own and own.excludes(h))
                    and not (anywhere and anywhere.excludes(h))
                    for h in vs.hosts
                ):
                    found.append(vs)
                    break
        return tuple(found)

    @cached_property
    def by_host(self) -> dict[str, Host]:
        """host name -> the service that clusters exist for (collectImportedServices)."""
        found: dict[str, Host] = {}
        for listener in self.listeners:
            for host in listener.hosts:
                _add(found, host)
            for vs in listener.virtual:
                for name, ports in vs.destinations(self.namespace).items():
                    owners = self.registry.by_name.get(name)
                    if not owners:
                        continue
                    host_ = owners.get(self.namespace) or self._best(owners)
                    if host_ is None:
                        continue
                    wanted = {listener.port} if listener.port is not None and listener.protocol != "HTTP_PROXY" else ports
                    trimmed = host_ if 0 in wanted else _trim(host_, wanted)
                    if trimmed is not None:
                        _add(found, trimmed)
        return found

    def _best(self, owners: Mapping[str, Host]) -> Host | None:
        seen = [h for h in owners.values() if self.registry.is_visible(h, self.namespace)]
        return min(seen, key=lambda h: (not h.kubernetes, h.created, h.namespace), default=None)

    def for_port(self, port: int) -> Listener | None:
        """The listener that answers for routes on a port."""
        return next((x for x in self.listeners if x.port is None or x.port == port), None)

    def owner_of(self, listener: Listener, host: str) -> Virtual | None:
        """The VirtualService with the most specific host for a service (computeWildcardHostVirtualServiceIndex)."""
        exact: dict[str, Virtual] = {}
        wild: dict[str, Virtual] = {}
        for vs in listener.virtual:
            for h in vs.hosts:
                (wild if is_wild(h) else exact).setdefault(h, vs)
        return most_specific(host, exact, wild)


def _visible(virtual: Iterable[Virtual], namespace: str) -> tuple[Virtual, ...]:
    """Private ones first, then those exported to the namespace, then public ones; each oldest first, after the namespace's own
    Gateway API routes."""
    ranked: tuple[list[Virtual], list[Virtual], list[Virtual]] = ([], [], [])
    for vs in virtual:
        if "*" in vs.export_to:
            ranked[2].append(vs)
        elif "~" not in vs.export_to and namespace in vs.export_to:
            ranked[0 if vs.namespace == namespace else 1].append(vs)
    return tuple(vs for group in ranked for vs in sorted(group, key=lambda vs: not (vs.gateway_semantics and vs.namespace == namespace)))


def _trim(host: Host, ports: Iterable[int | None]) -> Host | None:
    """The service with only these ports, None where it has none of them."""
    wanted = set(ports)
    kept = tuple(p for p in host.ports if p.number in wanted)
    if len(kept) == len(host.ports):
        return host
    return msgspec.structs.replace(host, ports=kept) if kept else None


def _add(found: dict[str, Host], host: Host) -> None:
    """Merge services of one host as clusters see them (appendSidecarServices)."""
    have = found.get(host.hostname)
    if have is None:
        found[host.hostname] = host
    elif have is host or (have.kubernetes and not host.kubernetes):
        return
    elif host.kubernetes and not have.kubernetes:
        found[host.hostname] = host
    elif (
        have.namespace == host.namespace
        and have.resolution == host.resolution
        and have.selector == host.selector
        and have.export_to == host.export_to
    ):
        more = tuple(p for p in host.ports if have.port(p.number) is None)
        if more:
            found[host.hostname] = msgspec.structs.replace(have, ports=(*have.ports, *more))


class Sidecars:
    """Every Sidecar that one control plane reads."""

    def __init__(self, sidecars: Iterable[Sidecar], root: str) -> None:
        ordered = sorted(sidecars, key=lambda s: (s.spec.workload_selector is None, *age(s)))
        self._in: dict[str, list[Sidecar]] = {}
        for sidecar in ordered:
            self._in.setdefault(sidecar.namespace, []).append(sidecar)
        self._root = next((s for s in self._in.get(root, ()) if s.spec.workload_selector is None), None)

    def of(self, namespace: str, labels: Mapping[str, str]) -> Sidecar | None:
        """The Sidecar that governs a workload."""
        found = self._in.get(namespace)
        if found:
            for sidecar in found:
                selector = sidecar.spec.workload_selector
                if selector is None or subset(selector.labels, labels):
                    return sidecar
        return self._root

    def keys(self, namespace: str) -> frozenset[str]:
        """The labels that its selectors look at."""
        return frozenset(
            k for s in self._in.get(namespace, ()) if s.spec.workload_selector for k in s.spec.workload_selector.labels
        )

    def any_in(self, namespace: str) -> bool:
        return namespace in self._in

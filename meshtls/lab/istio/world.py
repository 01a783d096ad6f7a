"""What the control plane sees: a read-only view of the cluster's objects, indexed once, with Istio's services and
endpoints.

A World never changes: build a new one when objects change. Services are Kubernetes Services and ServiceEntries alike
(pilot/pkg/serviceregistry), oldest first; an endpoint carries the tlsMode label of the pod behind it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar

from meshtls.cluster.kinds import KINDS
from meshtls.lab.api import select
from meshtls.lab.istio import endpoints, hosts, meshconfig
from meshtls.lab.istio.objects import (
    DOMAIN,
    ROOT,
    Endpoint,
    Obj,
    Port,
    Service,
    Target,
    age,
    annotations,
    at,
    labels,
    name_of,
    namespace_of,
    parse,
    pod_ip,
    protocol_of,
    spec,
    target_port,
)

# Kind -> the name under which an object store keeps its list.
RESOURCES = {
    kind: KINDS[kind].resource
    for kind in (
        *("Pod", "Service", "Namespace", "ConfigMap", "EndpointSlice", "MutatingWebhookConfiguration"),
        *("PeerAuthentication", "AuthorizationPolicy", "Telemetry"),
        *("DestinationRule", "VirtualService", "Sidecar", "ServiceEntry", "WorkloadEntry"),
    )
}

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    out: dict[K, list[T]] = defaultdict(list)
    for item in items:
        out[key(item)].append(item)
    return out


def _key(value: Any) -> Any:
    if isinstance(value, Service):  # whatever its ports are cut to
        return value.hostname, id(value.source)
    return frozenset(value.items()) if isinstance(value, dict) else value


def remembered(find: "Callable[Concatenate[World, P], T]") -> "Callable[Concatenate[World, P], T]":
    """What is found in a World once for the same arguments; a service stands for its object's host."""

    def known(world: "World", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return world.once((find, *map(_key, args)), find, world, *args, **kwargs)

    return known


class World:
    """Read-only view over lists of plain objects per resource ("pods", "peerauthentications.security.istio.io",
    ...)."""

    def __init__(
        self, lists: Mapping[str, Iterable[Obj]], *, config_domain: str = DOMAIN, settings: object = None, last: Obj | None = None
    ) -> None:
        """`settings` equals another World's where the two differ in pods and endpoints only; `last` is the `mesh` of the
        World before. `config_domain` completes short host names in Istio's own objects. It is the cluster's domain on a
        cluster, and empty where istiod was fed from memory, as in its simulations: there `web` in namespace `a` means
        `web.a`, which fits nothing."""
        self.lists = {resource: list(items) for resource, items in lists.items()}
        self.config_domain = config_domain
        self.settings = object() if settings is None else settings
        self._last = last
        self._cache: dict[Any, Any] = {}

    @classmethod
    def of(cls, objects: Iterable[Obj], *, config_domain: str = DOMAIN) -> "World":
        """A World from a flat list of objects of any kinds; kinds that Istio does not read are left out."""
        read = (o for o in objects if o["kind"] in RESOURCES)
        return cls(_grouped(read, lambda o: RESOURCES[o["kind"]]), config_domain=config_domain)

    def once(self, key: Any, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `make` gives, asked once in this World for the key."""
        if key not in self._cache:
            self._cache[key] = make(*args, **kwargs)
        found: T = self._cache[key]
        return found

    @remembered
    def kind(self, kind: str) -> list[Obj]:
        """All objects of a kind ("DestinationRule"), oldest first."""
        always = kind == "ConfigMap" or not KINDS[kind].namespaced  # whatever discoverySelectors say
        found = self.lists.get(RESOURCES[kind], ())
        return sorted((o for o in found if always or self.discovers(namespace_of(o))), key=age)

    def levels(self, kind: str, namespace: str, marks: dict[str, str]) -> dict[str, Obj]:
        """The oldest object of a kind that applies to a workload with these labels, per level, from the widest: `root`,
        `namespace`, `workload`."""
        found: dict[str, Obj] = {}
        for obj in self.kind(kind):
            home, selector = namespace_of(obj), at(spec(obj), "selector", "matchLabels")
            if not selector and home in (self.root_namespace, namespace):
                found.setdefault("root" if home == self.root_namespace else "namespace", obj)
            elif selector and home == namespace and hosts.labels_match(selector, marks):
                found.setdefault("workload", obj)
        return {level: found[level] for level in ("root", "namespace", "workload") if level in found}

    def discovers(self, namespace: str) -> bool:
        """Whether the control plane looks into a namespace at all (discoverySelectors)."""
        selectors = self.mesh.get("discoverySelectors")
        marks = {"kubernetes.io/metadata.name": namespace, **self._namespaces.get(namespace, {})} if selectors else {}
        return not selectors or any(select.selected(selector, marks) for selector in selectors)

    @cached_property
    def _namespaces(self) -> dict[str, dict[str, str]]:
        return {name_of(n): labels(n) for n in self.kind("Namespace")}

    def settings_of(self, name: str) -> dict[str, str] | None:
        """The data of a ConfigMap in istio-system, None without one."""
        given = (c for c in self.kind("ConfigMap") if (namespace_of(c), name_of(c)) == (ROOT, name))
        return next((c.get("data") or {} for c in given), None)

    @cached_property
    def mesh(self) -> Obj:
        """MeshConfig: key `mesh` of ConfigMap istio-system/istio over the defaults; while that cannot be read, the `last`
        World's. Raises InputError where there is none."""
        return meshconfig.mesh((self.settings_of("istio") or {}).get("mesh") or "{}", self._last)

    @property
    def root_namespace(self) -> str:
        """Where mesh-wide configuration lives."""
        return str(self.mesh["rootNamespace"] or ROOT)

    @cached_property
    def trust_domains(self) -> list[str]:
        """The mesh's trust domain, then its aliases by name, then those that extra CA certificates are for."""
        aliases = sorted(self.mesh.get("trustDomainAliases") or [])
        foreign = [d for c in self.mesh.get("caCertificates") or [] for d in c.get("trustDomains") or []]
        return list(dict.fromkeys([self.mesh["trustDomain"], *aliases, *foreign]))

    @cached_property
    def pods_by_name(self) -> dict[tuple[str, str], Obj]:
        """(namespace, name) -> pod."""
        return {(namespace_of(p), name_of(p)): p for p in self.kind("Pod")}

    @cached_property
    def pods_by_ip(self) -> dict[str, Obj]:
        """Address -> pod; pods in the host's network and finished ones are left out."""
        done = ("Succeeded", "Failed")
        own = [p for p in self.kind("Pod") if not spec(p).get("hostNetwork") and at(p, "status", "phase") not in done]
        return {pod_ip(p): p for p in own if pod_ip(p)}

    @cached_property
    def services(self) -> list[Service]:
        """Every service of both registries, oldest first."""
        found = [self._kubernetes(s) for s in self.kind("Service")]
        found += [service for entry in self.kind("ServiceEntry") for service in self._entry(entry)]
        return sorted(found, key=lambda s: (s.created, name_of(s.source) if s.kubernetes else s.hostname, s.namespace))

    @cached_property
    def by_hostname(self) -> dict[str, dict[str, Service]]:
        """Host -> namespace -> service; a Kubernetes Service comes before a ServiceEntry, then the oldest."""
        out: dict[str, dict[str, Service]] = defaultdict(dict)
        for service in sorted(self.services, key=lambda s: not s.kubernetes):
            out[service.hostname].setdefault(service.namespace, service)
        return dict(out)

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Host -> the ExternalName services that stand for it, through other aliases too (resolveServiceAliases)."""
        direct = {s.hostname: s.alias_for for s in self.services if s.alias_for}
        table: dict[str, list[str]] = defaultdict(list)
        for alias in sorted(direct):
            end, seen = direct[alias], {alias}
            while end in direct and end not in seen:
                seen.add(end)
                end = direct[end]
            if end not in direct:
                table[end].append(alias)
        return dict(table)

    @remembered
    def endpoints(self, service: Service, number: int) -> tuple[Endpoint, ...]:
        """The endpoints of a service port, those that are not ready among them."""
        return tuple((endpoints.of_service if service.kubernetes else endpoints.of_entry)(self, service, number))

    def behind(self, service: Service, port: Port) -> list[Endpoint]:
        """Where a cluster of the port leads: services of one host and namespace share the endpoints of a port's name."""
        return self._shared(service, lambda _, p: (p.number, p.name) == (port.number, port.name))

    @remembered
    def instances(self, service: Service, number: int) -> list[Endpoint]:
        """What TLS is inferred from on a port: services of one host and namespace share their endpoints, the youngest
        that has the port says which (initServiceRegistry, CopyEndpoints)."""

        def of(port: Port) -> list[Endpoint]:
            return self._shared(service, lambda s, p: p.name == port.name if s.kubernetes else p.number == number)

        ports = (s.port(number) for s in reversed(self._alike[service.hostname, service.namespace]))
        return next(filter(None, map(of, filter(None, ports))), [])

    def _shared(self, service: Service, fits: Callable[[Service, Port], bool]) -> list[Endpoint]:
        alike = self._alike[service.hostname, service.namespace]
        return [e for s in alike for p in s.ports if fits(s, p) for e in self.endpoints(s, p.number)]

    @cached_property
    def _alike(self) -> dict[tuple[str, str], list[Service]]:
        return _grouped(self.services, lambda s: (s.hostname, s.namespace))

    @remembered
    def accounts(self, service: Service) -> list[str]:
        """The SPIFFE names that may answer for a service, with the trust domain's aliases, sorted: its endpoints' (which
        count before they are ready, updateShardServiceAccount), and what the youngest service of its host and namespace
        names (initServiceAccounts)."""
        found = {e.account for e in self._shared(service, lambda *_: True) if e.account}
        found |= set(self._alike[service.hostname, service.namespace][-1].accounts)
        for name in [n for n in found if n.startswith("spiffe://")]:
            domain, _, rest = name.removeprefix("spiffe://").partition("/")
            if domain in self.trust_domains:
                found |= {f"spiffe://{d}/{rest}" for d in self.trust_domains}
        return sorted(found)

    def identity(self, namespace: str, account: str | None) -> str:
        """The SPIFFE name of a service account."""
        return f"spiffe://{self.mesh['trustDomain']}/ns/{namespace}/sa/{account or 'default'}"

    def account(self, pod: Obj) -> str:
        """A pod's SPIFFE name."""
        return self.identity(namespace_of(pod), spec(pod).get("serviceAccountName"))

    @cached_property
    def _by_selector(self) -> dict[tuple[str, str, str], list[Service]]:
        """(namespace, label, value) of a selector's first pair -> Services; what selects no pods of itself stands under
        empty words."""

        def first(service: Service) -> tuple[str, str, str]:
            pairs = service.selector.items() if service.kubernetes else ()
            return service.namespace, *next(iter(pairs), ("", ""))

        return _grouped(self.services, first)

    def targets(self, pod: Obj) -> list[Target]:
        """The ports of a pod that services name, oldest service first (GetProxyServiceTargets)."""
        home, marks = namespace_of(pod), labels(pod)
        known = (s for pair in marks.items() for s in self._by_selector.get((home, *pair), ()))
        selecting = [s for s in known if hosts.labels_match(s.selector, marks)]
        out: dict[tuple[int, int, str], Target] = {}
        for service in selecting:
            for declared, port in zip(service.ports, spec(service.source).get("ports") or [], strict=True):
                number = target_port(pod, port)
                if number is not None:
                    out.setdefault((id(service), number, declared.protocol), Target(service, declared, number))
        found = list(out.values())
        for service in self._by_selector.get((home, "", ""), ()):
            if not (service.kubernetes and selecting):
                found += [
                    Target(service, declared, e.port)
                    for declared in service.ports
                    for e in self.endpoints(service, declared.number)
                    if e.address == pod_ip(pod)
                ]
        return sorted(found, key=lambda t: (t.service.created, t.service.hostname))

    def _kubernetes(self, obj: Obj) -> Service:
        """serviceregistry/kube ConvertService."""
        body, home = spec(obj), namespace_of(obj)
        ip, headless = body.get("clusterIP") or "", body.get("clusterIP") == "None"
        alias = body.get("externalName") or "" if body.get("type") == "ExternalName" else ""

        def named(note: str) -> list[str]:
            return [n for n in annotations(obj).get(note, "").split(",") if n.strip()]

        def port(given: Obj) -> Port:
            number, name = given["port"], given.get("name") or ""
            return Port(name, number, protocol_of(number, name, given.get("protocol") or "TCP", given.get("appProtocol")))

        plain = [self.identity(home, a) for a in named("alpha.istio.io/kubernetes-serviceaccounts")]
        return Service(
            source=obj,
            hostname=f"{name_of(obj)}.{home}.svc.{DOMAIN}",
            namespace=home,
            kubernetes=True,
            resolution="PASSTHROUGH" if headless else "ALIAS" if alias else "EDS",
            ports=tuple(map(port, body.get("ports") or [])),
            addresses=tuple(body.get("clusterIPs") or [ip]) if ip and not headless else ("0.0.0.0",),
            export_to=self._export(n.strip() for n in named("networking.istio.io/exportTo")),
            selector=body.get("selector") or {},
            accounts=(*named("alpha.istio.io/canonical-serviceaccounts"), *plain),
            external=bool(alias),
            alias_for=alias,
        )

    def _entry(self, obj: Obj) -> Iterable[Service]:
        """serviceregistry/serviceentry convertServices: one service per host and address."""
        body = spec(obj)
        resolution = body.get("resolution") or "NONE"
        ports = body.get("ports") or []
        for host in body.get("hosts") or []:
            for address in body.get("addresses") or ["0.0.0.0"]:
                yield Service(
                    source=obj,
                    hostname=host,
                    namespace=namespace_of(obj),
                    kubernetes=False,
                    resolution={"NONE": "PASSTHROUGH", "STATIC": "EDS"}.get(resolution, resolution),
                    ports=tuple(Port(p.get("name") or "", p["number"], parse(p.get("protocol", ""))) for p in ports),
                    addresses=(address.removesuffix("/32"),),
                    export_to=self._export(body.get("exportTo") or ()),
                    selector=at(body, "workloadSelector", "labels") or {},
                    accounts=tuple(body.get("subjectAltNames") or ()),
                    external=(body.get("location") or "MESH_EXTERNAL") == "MESH_EXTERNAL",
                )

    def _export(self, given: Iterable[str]) -> frozenset[str]:
        return frozenset(given) or frozenset(self.mesh.get("defaultServiceExportTo") or ["*"])

    @cached_property
    def slices(self) -> dict[tuple[str, str], list[Obj]]:
        """(namespace, name) of a Service -> its EndpointSlices."""
        named = "kubernetes.io/service-name"
        return _grouped(self.kind("EndpointSlice"), lambda o: (namespace_of(o), labels(o).get(named, "")))

"""What the control plane sees: a read-only view of the cluster's objects, indexed once, with Istio's services and
endpoints.

A World never changes: build a new one when objects change. Services are Kubernetes Services and ServiceEntries alike
(pilot/pkg/serviceregistry), oldest first; an endpoint carries the tlsMode label of the pod behind it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import yaml

from meshtls.errors import InputError
from meshtls.lab.istio import endpoints, hosts
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
    labels,
    name_of,
    namespace_of,
    parse,
    pod_ip,
    protocol_of,
    spec,
    target_port,
)

MESH_DEFAULTS: Obj = {"rootNamespace": ROOT, "trustDomain": DOMAIN, "enableAutoMtls": True, "accessLogFile": ""}

# Kind -> the name under which an object store keeps its list.
RESOURCES = {
    "Pod": "pods",
    "Service": "services",
    "Namespace": "namespaces",
    "ConfigMap": "configmaps",
    "EndpointSlice": "endpointslices.discovery.k8s.io",
    "PeerAuthentication": "peerauthentications.security.istio.io",
    "AuthorizationPolicy": "authorizationpolicies.security.istio.io",
    "DestinationRule": "destinationrules.networking.istio.io",
    "VirtualService": "virtualservices.networking.istio.io",
    "Sidecar": "sidecars.networking.istio.io",
    "ServiceEntry": "serviceentries.networking.istio.io",
    "WorkloadEntry": "workloadentries.networking.istio.io",
    "Telemetry": "telemetries.telemetry.istio.io",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations.admissionregistration.k8s.io",
}

EVERYWHERE = ("Namespace", "ConfigMap", "MutatingWebhookConfiguration")  # read whatever discoverySelectors say


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """YAML, read once: a World is made at every change of the cluster, MeshConfig hardly ever changes."""
    return yaml.safe_load(text) or {}


class World:
    """Read-only view over lists of plain objects per resource ("pods", "peerauthentications.security.istio.io",
    ...)."""

    def __init__(self, lists: Mapping[str, Iterable[Obj]], *, config_domain: str = DOMAIN, settings: object = None) -> None:
        """`settings` equals another World's where the two differ in pods and endpoints only. `config_domain` completes short host names in Istio's own objects. It is the cluster's domain on a cluster,
        and empty where istiod was fed from memory, as in its simulations: there `web` in namespace `a` means `web.a`,
        which fits nothing."""
        self.lists = {resource: list(items) for resource, items in lists.items()}
        self.config_domain = config_domain
        self.settings = object() if settings is None else settings
        self.cache: dict[Any, Any] = {}

    @classmethod
    def of(cls, objects: Iterable[Obj], *, config_domain: str = DOMAIN) -> "World":
        """A World from a flat list of objects of any kinds; kinds that Istio does not read are left out."""
        lists: dict[str, list[Obj]] = defaultdict(list)
        for obj in objects:
            if obj["kind"] in RESOURCES:
                lists[RESOURCES[obj["kind"]]].append(obj)
        return cls(lists, config_domain=config_domain)

    def kind(self, kind: str) -> list[Obj]:
        """All objects of a kind ("DestinationRule"), oldest first."""
        if kind not in self.cache:
            objects = [o for o in self.lists.get(RESOURCES[kind], ()) if kind in EVERYWHERE or self.discovers(namespace_of(o))]
            self.cache[kind] = sorted(objects, key=age)
        found: list[Obj] = self.cache[kind]
        return found

    def discovers(self, namespace: str) -> bool:
        """Whether the control plane looks into a namespace at all (discoverySelectors)."""
        selectors = self.mesh.get("discoverySelectors")
        if not selectors:
            return True
        if "namespaces" not in self.cache:
            self.cache["namespaces"] = {name_of(n): labels(n) for n in self.kind("Namespace")}
        marks = {"kubernetes.io/metadata.name": namespace, **self.cache["namespaces"].get(namespace, {})}
        return any(hosts.selects(selector, marks) for selector in selectors)

    @cached_property
    def mesh(self) -> Obj:
        """MeshConfig: key `mesh` of ConfigMap istio-system/istio over the defaults. Raises InputError when it is no
        mapping."""
        for config in self.kind("ConfigMap"):
            if (namespace_of(config), name_of(config)) == (ROOT, "istio"):
                try:
                    given = _parsed((config.get("data") or {}).get("mesh") or "{}")
                except yaml.YAMLError as error:
                    raise InputError(f"ConfigMap {ROOT}/istio, key mesh: not YAML: {error}") from error
                if not isinstance(given, dict):
                    raise InputError(
                        f"ConfigMap {ROOT}/istio, key mesh: not a mapping", "write MeshConfig fields, as YAML"
                    )
                return {**MESH_DEFAULTS, **given}
        return dict(MESH_DEFAULTS)

    @property
    def root_namespace(self) -> str:
        """Where mesh-wide configuration lives."""
        return str(self.mesh["rootNamespace"] or ROOT)

    @property
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
        return {
            pod_ip(p): p
            for p in self.kind("Pod")
            if pod_ip(p) and not spec(p).get("hostNetwork") and (p.get("status") or {}).get("phase") not in done
        }

    @cached_property
    def services(self) -> list[Service]:
        """Every service of both registries, oldest first."""
        found = [self._kubernetes(s) for s in self.kind("Service")]
        found += [service for entry in self.kind("ServiceEntry") for service in self._entry(entry)]
        return sorted(found, key=lambda s: (s.created, s.name, s.namespace))

    @cached_property
    def by_hostname(self) -> dict[str, dict[str, Service]]:
        """Host -> namespace -> service; a Kubernetes Service comes before a ServiceEntry, then the oldest."""
        out: dict[str, dict[str, Service]] = defaultdict(dict)
        for service in self.services:
            known = out[service.hostname].get(service.namespace)
            if known is None or (service.kubernetes and not known.kubernetes):
                out[service.hostname][service.namespace] = service
        return dict(out)

    def aliases(self, hostname: str) -> list[str]:
        """ExternalName services that stand for this host, through other aliases too (resolveServiceAliases)."""
        if "aliases" not in self.cache:
            direct = {s.hostname: s.alias_for for s in self.services if s.alias_for}
            table: dict[str, list[str]] = defaultdict(list)
            for alias in sorted(direct):
                end, seen = direct[alias], {alias}
                while end in direct and end not in seen:
                    seen.add(end)
                    end = direct[end]
                if end not in direct:
                    table[end].append(alias)
            self.cache["aliases"] = table
        found: list[str] = self.cache["aliases"].get(hostname, [])
        return found

    def visible(self, service: Service, namespace: str) -> bool:
        """Whether the service is exported to the namespace (IsServiceVisible)."""
        to = service.export_to
        return "*" in to or ("~" not in to and (("." in to and service.namespace == namespace) or namespace in to))

    def exported_to(self, namespace: str) -> list[Service]:
        """The services that a namespace sees: those exported to it by name first, then the public ones."""
        seen = [s for s in self.services if self.visible(s, namespace)]
        return sorted(seen, key=lambda s: "*" in s.export_to)

    def endpoints(self, service: Service, number: int) -> tuple[Endpoint, ...]:
        """The endpoints of a service port, those that are not ready among them."""
        key = ("endpoints", service.hostname, service.namespace, service.kubernetes, name_of(service.source), number)
        if key not in self.cache:
            find = endpoints.of_service if service.kubernetes else endpoints.of_entry
            self.cache[key] = tuple(find(self, service, number))
        found: tuple[Endpoint, ...] = self.cache[key]
        return found

    def behind(self, service: Service, port: Port) -> list[Endpoint]:
        """Where a cluster of the port leads: services of one host and namespace share the endpoints of a port's name."""
        return [
            e
            for one in self._alike[service.hostname, service.namespace]
            for p in one.ports
            if (p.number, p.name) == (port.number, port.name)
            for e in self.endpoints(one, p.number)
        ]

    def instances(self, service: Service, number: int) -> tuple[Endpoint, ...]:
        """What TLS is inferred from on a port: services of one host and namespace share their endpoints, the youngest
        that has the port says which (initServiceRegistry, CopyEndpoints)."""
        key = ("instances", service.hostname, service.namespace, number)
        if key not in self.cache:
            found: tuple[Endpoint, ...] = ()
            alike = self._alike[service.hostname, service.namespace]
            for one in alike:
                port = one.port(number)
                if port is None:
                    continue
                shared: list[Endpoint] = []
                for other in alike:
                    same = (p for p in other.ports if (p.name == port.name if other.kubernetes else p.number == number))
                    shared += [e for p in same for e in self.endpoints(other, p.number) if e not in shared]
                found = tuple(shared) or found
            self.cache[key] = found
        result: tuple[Endpoint, ...] = self.cache[key]
        return result

    @cached_property
    def _alike(self) -> dict[tuple[str, str], list[Service]]:
        out: dict[tuple[str, str], list[Service]] = defaultdict(list)
        for service in self.services:
            out[service.hostname, service.namespace].append(service)
        return out

    def accounts(self, service: Service) -> list[str]:
        """The SPIFFE names that may answer for a service, with the trust domain's aliases, sorted: its endpoints' (which
        count before they are ready, updateShardServiceAccount), and what the youngest service of its host and namespace
        names (initServiceAccounts)."""
        key = ("accounts", service.hostname, service.namespace)
        if key not in self.cache:
            alike = self._alike[service.hostname, service.namespace]
            found = {e.account for s in alike for p in s.ports for e in self.endpoints(s, p.number) if e.account}
            found |= set(alike[-1].accounts)
            for name in [n for n in found if n.startswith("spiffe://")]:
                domain, _, rest = name.removeprefix("spiffe://").partition("/")
                if domain in self.trust_domains:
                    found |= {f"spiffe://{d}/{rest}" for d in self.trust_domains}
            self.cache[key] = sorted(found)
        result: list[str] = self.cache[key]
        return result

    def identity(self, namespace: str, account: str) -> str:
        """The SPIFFE name of a service account."""
        return f"spiffe://{self.mesh['trustDomain']}/ns/{namespace}/sa/{account or 'default'}"

    def targets(self, pod: Obj) -> list[Target]:
        """The ports of a pod that services name, oldest service first (GetProxyServiceTargets)."""
        out: list[Target] = []
        selected = False
        for service in self.services:
            if not service.kubernetes or service.namespace != namespace_of(pod):
                continue
            if service.selector and hosts.labels_match(service.selector, labels(pod)):
                seen, selected = set(), True
                for port in spec(service.source).get("ports") or []:
                    number = target_port(pod, port)
                    declared = next(p for p in service.ports if p.name == (port.get("name") or ""))
                    if number is not None and (number, declared.protocol) not in seen:
                        seen.add((number, declared.protocol))
                        out.append(Target(service, declared, number))
        for service in self.services:
            if service.kubernetes and (selected or service.selector or service.namespace != namespace_of(pod)):
                continue
            if service.namespace != namespace_of(pod):
                continue
            for declared in service.ports:
                out += [
                    Target(service, declared, e.port)
                    for e in self.endpoints(service, declared.number)
                    if e.address == pod_ip(pod)
                ]
        return sorted(out, key=lambda t: (t.service.created, t.service.hostname))

    def _kubernetes(self, obj: Obj) -> Service:
        """serviceregistry/kube ConvertService."""
        body, notes = spec(obj), annotations(obj)
        cluster_ip = body.get("clusterIP") or ""
        alias = body.get("externalName") or "" if body.get("type") == "ExternalName" else ""
        export = {n.strip() for n in notes.get("networking.istio.io/exportTo", "").split(",") if n.strip()}
        accounts = [a for a in notes.get("alpha.istio.io/canonical-serviceaccounts", "").split(",") if a]
        plain = [a for a in notes.get("alpha.istio.io/kubernetes-serviceaccounts", "").split(",") if a]
        addresses = tuple(body.get("clusterIPs") or [cluster_ip]) if cluster_ip not in ("", "None") else ("0.0.0.0",)
        return Service(
            hostname=f"{name_of(obj)}.{namespace_of(obj)}.svc.{DOMAIN}",
            namespace=namespace_of(obj),
            name=name_of(obj),
            ports=tuple(
                Port(
                    p.get("name") or "",
                    p["port"],
                    protocol_of(p["port"], p.get("name") or "", p.get("protocol") or "TCP", p.get("appProtocol")),
                )
                for p in body.get("ports") or []
            ),
            addresses=addresses,
            resolution="PASSTHROUGH" if cluster_ip == "None" else "ALIAS" if alias else "EDS",
            kubernetes=True,
            external=bool(alias),
            export_to=frozenset(export) or frozenset(self.mesh.get("defaultServiceExportTo") or ["*"]),
            selector=body.get("selector") or {},
            created=age(obj)[0],
            accounts=tuple(accounts + [self.identity(namespace_of(obj), a) for a in plain]),
            source=obj,
            alias_for=alias,
        )

    def _entry(self, obj: Obj) -> list[Service]:
        """serviceregistry/serviceentry convertServices: one service per host and address."""
        body = spec(obj)
        resolutions = {"NONE": "PASSTHROUGH", "STATIC": "EDS", "DYNAMIC_DNS": "DYNAMIC_DNS"}
        resolution = body.get("resolution") or "NONE"
        out = []
        for host in body.get("hosts") or []:
            for address in body.get("addresses") or ["0.0.0.0"]:
                out.append(
                    Service(
                        hostname=host,
                        namespace=namespace_of(obj),
                        name=host,
                        ports=tuple(
                            Port(
                                p.get("name") or "",
                                p["number"],
                                parse(p.get("protocol", "")),
                            )
                            for p in body.get("ports") or []
                        ),
                        addresses=(address.removesuffix("/32"),),
                        resolution=resolutions.get(resolution, resolution),
                        kubernetes=False,
                        external=(body.get("location") or "MESH_EXTERNAL") == "MESH_EXTERNAL",
                        export_to=frozenset(body.get("exportTo") or self.mesh.get("defaultServiceExportTo") or ["*"]),
                        selector=(body.get("workloadSelector") or {}).get("labels") or {},
                        created=age(obj)[0],
                        accounts=tuple(body.get("subjectAltNames") or ()),
                        source=obj,
                    )
                )
        return out

    @cached_property
    def slices(self) -> dict[tuple[str, str], list[Obj]]:
        """(namespace, name) of a Service -> its EndpointSlices."""
        out: dict[tuple[str, str], list[Obj]] = defaultdict(list)
        for obj in self.kind("EndpointSlice"):
            out[namespace_of(obj), labels(obj).get("kubernetes.io/service-name", "")].append(obj)
        return out

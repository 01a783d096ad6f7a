"""The services that a control plane knows, who sees them, and their endpoints.

1. An endpoint speaks mTLS when its pod's label `security.istio.io/tlsMode` is `istio`; a pod that is only addressed, not
   referred to, is found in the Service's namespace alone, and while it is ready.
2. Where the input has no EndpointSlice of a Service, its endpoints are the pods, or the pods to be, that it selects.
3. Services of one host and namespace share their endpoints where TLS is inferred from them.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from meshtls.model.config import MeshConfig
from meshtls.model.mesh import Mesh, by_namespace, pod_addresses
from meshtls.model.objects import Pod, Service, ServiceEntry, ServicePort, WorkloadEntry, WorkloadEntrySpec
from meshtls.policy.select import subset
from meshtls.policy.service import DNS, EDS, TLS_MODE, UDP, Endpoint, Host, Port, host_of, hosts_of, target_port, tls_mode


class Registry:
    """`mesh` is what the control plane reads (already narrowed by discovery selectors and revision)."""

    def __init__(self, mesh: Mesh, config: MeshConfig, faces: Callable[[], dict[str, tuple[Pod, ...]]]) -> None:
        self.mesh, self.config, self._faces = mesh, config, faces
        self._default = config.default_service_export_to or ("*",)
        hosts = [host_of(s) for s in mesh.services]
        hosts.extend(h for entry in mesh.service_entries for h in hosts_of(entry))
        self.hosts: tuple[Host, ...] = tuple(sorted(hosts, key=lambda h: (h.created, h.name, h.namespace)))
        self.by_name: dict[str, dict[str, Host]] = {}
        public: list[Host] = []
        private: dict[str, list[Host]] = {}
        for host in self.hosts:
            table = self.by_name.setdefault(host.hostname, {})
            earlier = table.get(host.namespace)
            if earlier is None or (not earlier.kubernetes and host.kubernetes):
                table[host.namespace] = host
            seen_by = host.export_to or self._default
            if "*" in seen_by:
                public.append(host)
            elif "~" not in seen_by:
                for namespace in {host.namespace if to == "." else to for to in seen_by}:
                    private.setdefault(namespace, []).append(host)
        self.public = tuple(public)
        self.private = {namespace: tuple(found) for namespace, found in private.items()}
        self._endpoints: dict[tuple[str, str, bool], dict[int, tuple[Endpoint, ...]]] = {}

    def visible(self, namespace: str) -> tuple[Host, ...]:
        """The services exported to a namespace (servicesExportedToNamespace)."""
        private = self.private.get(namespace)
        return (*private, *self.public) if private else self.public

    def is_public(self, host: Host) -> bool:
        return "*" in (host.export_to or self._default)

    def is_visible(self, host: Host, namespace: str) -> bool:
        seen_by = host.export_to or self._default
        if "~" in seen_by and "*" not in seen_by:
            return False
        return "*" in seen_by or namespace in seen_by or ("." in seen_by and host.namespace == namespace)

    def endpoints(self, host: Host, machines: bool = True) -> dict[int, tuple[Endpoint, ...]]:
        """Service port -> endpoints, those that are not ready or terminating included.

        Without `machines` those that the cluster itself balances a Service to: it knows no WorkloadEntries.
        """
        machines = machines and bool(self.mesh.workload_entries)
        key = (host.hostname, host.ref, machines)
        found = self._endpoints.get(key)
        if found is None:
            found = self._endpoints[key] = self._of_service(host, machines) if host.kubernetes else self._of_entry(host)
        return found

    def instances(self, host: Host, number: int) -> tuple[Endpoint, ...]:
        """What automatic mTLS is inferred from on a port that is passed through (initServiceRegistry, CopyEndpoints).

        Services of one host and namespace share their endpoints, Services by port name and ServiceEntries by number; the
        youngest that has the port decides.
        """
        alike = self._alike.get((host.hostname, host.namespace), [])
        if len(alike) < 2:
            return self.endpoints(host).get(number, ())
        for one in reversed(alike):
            if (port := one.port(number)) is None:
                continue
            shared: dict[int, Endpoint] = {}
            for other in alike:
                for each in other.ports:
                    if each.name == port.name if other.kubernetes else each.number == number:
                        shared.update((id(e), e) for e in self.endpoints(other).get(each.number, ()))
            if shared:
                return tuple(shared.values())
        return ()

    def balanced(self, host: Host, number: int) -> tuple[Endpoint, ...]:
        """What traffic to a port is spread over: the endpoints of all Services and ServiceEntries of one host and namespace, by the
        name of the port; names that only DNS knows stay with their ServiceEntry (endpoint_builder.go)."""
        alike = self._alike.get((host.hostname, host.namespace), ())
        if len(alike) < 2 or (port := host.port(number)) is None:
            return self.endpoints(host).get(number, ())
        shared: dict[int, Endpoint] = {}
        for other in (host, *alike):
            for each in other.ports:
                if each.name == port.name:
                    found = self.endpoints(other).get(each.number, ())
                    shared.update((id(e), e) for e in found if other.resolution not in DNS or host.resolution in DNS or e.pod)
        return tuple(shared.values())

    @cached_property
    def _alike(self) -> dict[tuple[str, str], list[Host]]:
        found: dict[tuple[str, str], list[Host]] = {}
        for host in self.hosts:
            found.setdefault((host.hostname, host.namespace), []).append(host)
        return found

    def _of_service(self, host: Host, machines: bool) -> dict[int, tuple[Endpoint, ...]]:
        service = self.mesh.services_by_name.get((host.namespace, host.name))
        if service is None:
            return {}
        slices = self.mesh.slices_of.get((host.namespace, host.name))
        by_port: dict[int, list[Endpoint]] = {p.port: [] for p in service.spec.ports}  # a Sidecar may have cut those of `host`
        if slices is None:
            for pod in self._selected(host):
                for declared in service.spec.ports:
                    number = target_port(pod, declared)
                    if number is not None:
                        by_port[declared.port].append(_endpoint(pod, number, declared.name))
            self._machines_of(service, host if machines else None, by_port)
            return {number: tuple(found) for number, found in by_port.items()}
        numbers = {p.name: p.port for p in service.spec.ports}
        seen: set[tuple[str, str]] = set()
        for piece in slices:
            if piece.address_type == "FQDN":
                continue
            for endpoint in piece.endpoints:
                state = endpoint.conditions
                going = state.ready is False and state.terminating is not False
                for address in endpoint.addresses:
                    known: Pod | None
                    ref = endpoint.target_ref
                    if ref is not None and ref.kind == "Pod":
                        known = self.pods.get((ref.namespace or host.namespace, ref.name))
                        if known is None:
                            continue
                        real = known
                    else:
                        near = (p for p in self.by_ip.get(address, ()) if p.namespace == host.namespace and _is_ready(p))
                        known = next(near, None)
                        real = known or next(iter(self.by_ip.get(address, ())), None)  # type: ignore[assignment]
                    for port in piece.ports:
                        number = numbers.get(port.name)
                        if number is None or (address, port.name) in seen:
                            continue
                        seen.add((address, port.name))
                        labels = known.labels if known else {}
                        by_port[number].append(
                            Endpoint(
                                address, port.port, port.name, labels, known.namespace if known else "",
                                tls_mode(labels), real, going, state.ready is not False,
                            )
                        )  # fmt: skip
        self._machines_of(service, host if machines else None, by_port)
        return {number: tuple(found) for number, found in by_port.items()}

    def _machines_of(self, service: Service, host: Host | None, by_port: dict[int, list[Endpoint]]) -> None:
        """Adds the WorkloadEntries that a Service with a cluster IP selects (serviceInstancesFromWorkloadInstances)."""
        if host is None or not host.selector or host.resolution != EDS:
            return
        for machine in self.mesh.workload_entries:
            labels = labels_of(machine)
            if machine.namespace != host.namespace or not subset(host.selector, labels):
                continue
            for declared in service.spec.ports:
                number = _machine_port(machine, declared)
                if number is not None:
                    by_port[declared.port].append(self._of_workload(machine.spec, labels, number, "", host))

    def _of_entry(self, host: Host) -> dict[int, tuple[Endpoint, ...]]:
        entry = self.mesh.find(host.ref)
        assert isinstance(entry, ServiceEntry)
        found: dict[int, list[Endpoint]] = {p.number: [] for p in entry.spec.ports}
        for port in entry.spec.ports:
            fallback = port.target_port or port.number
            if entry.spec.workload_selector is not None:
                for pod in self._selected(host):
                    found[port.number].append(_endpoint(pod, fallback, port.name))
                for other in self.mesh.workload_entries:
                    if other.namespace == host.namespace and subset(host.selector, labels := labels_of(other)):
                        found[port.number].append(self._of_workload(other.spec, labels, fallback, port.name, host))
            elif not entry.spec.endpoints and host.resolution in DNS:
                found[port.number].append(
                    Endpoint(host.hostname, fallback, port.name, {}, host.namespace, "disabled", None)
                )
            else:
                for spec in entry.spec.endpoints:
                    found[port.number].append(self._of_workload(spec, spec.labels, fallback, port.name, host))
        return {number: tuple(endpoints) for number, endpoints in found.items()}

    def _of_workload(
        self, spec: WorkloadEntrySpec, labels: dict[str, str], fallback: int, port: str, host: Host
    ) -> Endpoint:
        mode = labels.get(TLS_MODE) or ("istio" if spec.service_account else "disabled")
        pod = next(iter(self.by_ip.get(spec.address, ())), None)
        return Endpoint(spec.address, spec.ports.get(port) or fallback, port, labels, host.namespace, mode, pod)

    def _selected(self, host: Host) -> Iterable[Pod]:
        if not host.selector:
            return ()
        return (pod for pod in self._faces().get(host.namespace, ()) if subset(host.selector, pod.labels))

    @cached_property
    def pods(self) -> dict[tuple[str, str], Pod]:
        return {(p.metadata.namespace, p.metadata.name): p for p in self.mesh.pods}

    @cached_property
    def by_ip(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.mesh.pods:
            if pod.status.phase not in ("Succeeded", "Failed"):
                for address in pod_addresses(pod):
                    found.setdefault(address, []).append(pod)
        return found

    @cached_property
    def _selecting(self) -> dict[tuple[str, str, str], list[tuple[Service, Host]]]:
        """(namespace, label, value) -> Services whose selector begins with that label."""
        found: dict[tuple[str, str, str], list[tuple[Service, Host]]] = {}
        for service in self.mesh.services:
            for key, value in service.spec.selector.items():
                host = self.by_name[f"{service.name}.{service.namespace}.svc.cluster.local"][service.namespace]
                found.setdefault((service.namespace, key, value), []).append((service, host))
                break
        return found

    @cached_property
    def _unselecting(self) -> dict[str, tuple[Service, ...]]:
        return by_namespace(s for s in self.mesh.services if not s.spec.selector)

    @cached_property
    def _entries_in(self) -> dict[str, tuple[ServiceEntry, ...]]:
        """Namespace -> ServiceEntries that select workloads."""
        return by_namespace(
            e for e in self.mesh.service_entries if e.spec.workload_selector and e.spec.workload_selector.labels
        )

    @cached_property
    def _written_at(self) -> dict[str, list[tuple[Host, Port, int]]]:
        """Address -> what ServiceEntries say is served there, where they write their endpoints themselves."""
        found: dict[str, list[tuple[Host, Port, int]]] = {}
        for host in self.hosts:
            if not host.kubernetes and not host.selector:
                for number, endpoints in self.endpoints(host).items():
                    port = host.port(number)
                    if port is None:
                        continue
                    for e in endpoints:
                        found.setdefault(e.address, []).append((host, port, e.port))
        return found

    @cached_property
    def _machines_at(self) -> dict[str, list[WorkloadEntry]]:
        """Address -> the WorkloadEntries that have it, by namespace and name."""
        found: dict[str, list[WorkloadEntry]] = {}
        for machine in sorted(self.mesh.workload_entries, key=lambda m: (m.namespace, m.name)):
            found.setdefault(machine.spec.address, []).append(machine)
        return found

    def _of_machine(self, machine: WorkloadEntry) -> Iterator[tuple[Host, Port, int]]:
        """What Services with a cluster IP say is served at a WorkloadEntry (serviceTargetsFromWorkloadInstance)."""
        for service in self.mesh.services_in.get(machine.namespace, ()):
            host = self.by_name[f"{service.name}.{service.namespace}.svc.cluster.local"][service.namespace]
            if host.resolution == EDS and service.spec.selector and subset(service.spec.selector, labels_of(machine)):
                for declared, port in zip(service.spec.ports, host.ports, strict=True):
                    number = _machine_port(machine, declared)
                    if number is not None and port.protocol != UDP:
                        yield host, port, number

    def serving(self, pod: Pod, machines_too: bool = True) -> list[tuple[Host, Port, int]]:
        """(service, its port, target port) of every service that makes a pod listen, in the order in which the first wins.

        Services select it; only where none does do EndpointSlices count (Controller.GetProxyServiceTargets). Where a WorkloadEntry
        has its address, the Services that select that one count instead. ServiceEntries of its namespace that select it
        or such an entry, or write its address, count beside them. Without `machines_too` no WorkloadEntry counts: what the pod speaks.
        """
        found: list[tuple[Host, Port, int]] = []
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        machines = self._machines_at.get(next(iter(pod_addresses(pod)), ""), ()) if machines_too else ()
        machine = next((m for m in machines if m.namespace == namespace), next(iter(machines), None))
        selected = machine is not None
        if machine is not None:
            found.extend(self._of_machine(machine))
        for item in labels.items() if machine is None else ():
            for service, host in self._selecting.get((namespace, *item), ()):
                if not subset(service.spec.selector, labels):
                    continue
                selected = True
                for declared, port in zip(service.spec.ports, host.ports, strict=True):
                    number = target_port(pod, declared)
                    if number is not None:
                        found.append((host, port, number))
        if not selected and namespace in self._unselecting:
            addresses = set(pod_addresses(pod))
            for service in self._unselecting[namespace] if addresses else ():
                host = self.by_name[f"{service.name}.{namespace}.svc.cluster.local"][namespace]
                for number, endpoints in self.endpoints(host).items():
                    known = host.port(number)
                    found.extend((host, known, e.port) for e in endpoints if e.address in addresses and known)
        for entry in self._entries_in.get(namespace, ()):
            assert entry.spec.workload_selector is not None
            wanted = entry.spec.workload_selector.labels
            own: list[dict[str, int]] = [{}] if subset(wanted, labels) else []
            own += [m.spec.ports for m in machines if m.namespace == namespace and subset(wanted, labels_of(m))]
            for numbers in own:
                for host in hosts_of(entry):
                    for declared_, port in zip(entry.spec.ports, host.ports, strict=True):
                        found.append((host, port, numbers.get(port.name) or declared_.target_port or declared_.number))
        for address in pod_addresses(pod) if self._written_at else ():
            found.extend(t for t in self._written_at.get(address, ()) if t[0].namespace == namespace)
        if len(found) > 1:
            found.sort(key=lambda item: (item[0].created, item[0].hostname))
        return found


def labels_of(machine: WorkloadEntry) -> dict[str, str]:
    return {**machine.spec.labels, **machine.metadata.labels}


def _machine_port(machine: WorkloadEntry, port: ServicePort) -> int | None:
    """The port of a WorkloadEntry behind a Service's port."""
    target = port.target_port or port.port
    name = target if isinstance(target, str) else port.name
    return machine.spec.ports.get(name) or (target if isinstance(target, int) else None)


def _is_ready(pod: Pod) -> bool:
    return all(c.status == "True" for c in pod.status.conditions if c.type == "Ready")


def _endpoint(pod: Pod, port: int, name: str) -> Endpoint:
    addresses = pod_addresses(pod)
    address = addresses[0] if addresses else f"{pod.namespace}/{pod.name}"
    return Endpoint(address, port, name, pod.labels, pod.namespace, tls_mode(pod.labels), pod)

"""Which questions are asked: clients and servers of ours in each namespace, and handshakes with what is there.

Every client asks every server with every offer that it can make; a pair of pods in different namespaces is a question of
its own.  Pods that were there before get two handshakes a port from the client without sidecar in their own namespace,
and no byte of payload.  What is left out is a SKIP with its reason, never silence.  Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import msgspec

from meshtls.model.check import Check, Status
from meshtls.model.mesh import Mesh, pod_addresses
from meshtls.model.objects import Pod, Service
from meshtls.probe import fingerprint
from meshtls.probe.case import (
    DEFAULT_OFFERS,
    HTTP,
    OFFERS,
    PORT_NAMES,
    Case,
    Client,
    Handshake,
    Mode,
    Offer,
    Port,
    Server,
    Target,
)

# Istio's own: admin, Prometheus, health, HBONE, debug, capture; and Envoy's admin. They are not intercepted or not the application's.
PROXY_PORTS = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})

# (pod, port) -> what the policies say it enforces, and why.
ModeOfPort = Callable[[Pod, int], tuple[Mode, tuple[str, ...]]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asks for. `cells`: probe with servers of ours; `fingerprint`: handshakes with what is there.

    `also`: (client's namespace, pod's namespace, pod, port) of handshakes from other namespaces than the pod's own.
    """

    namespaces: tuple[str, ...]
    offers: tuple[str, ...] = DEFAULT_OFFERS
    cells: bool = True
    fingerprint: bool = True
    also: frozenset[tuple[str, str, str, int]] = frozenset()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that will be asked. Ids of cases and handshakes are unique."""

    clients: tuple[Client, ...]
    servers: tuple[Server, ...]
    cases: tuple[Case, ...]
    handshakes: tuple[Handshake, ...]
    skipped: tuple[Check, ...] = ()

    @property
    def questions(self) -> tuple[Case | Handshake, ...]:
        """Everything that is asked."""
        return (*self.cases, *self.handshakes)

    @property
    def everyone(self) -> tuple[Client | Server, ...]:
        """Every pod of ours, servers first."""
        return (*self.servers, *self.clients)

    def without(self, gone: Iterable[Client | Server], reason: str) -> "Plan":
        """The plan without these clients and servers; each becomes a SKIP with `reason`."""
        gone = tuple(gone)
        skips = tuple(
            Check(
                id=f"probe/{who.namespace}/{who.short}",
                title=f"probe pod {who.title}",
                status=Status.SKIP,
                group="probe pods",
                reason=reason,
            )
            for who in gone
        )
        return Plan(
            clients=tuple(c for c in self.clients if c not in gone),
            servers=tuple(s for s in self.servers if s not in gone),
            cases=tuple(c for c in self.cases if c.client not in gone and c.server not in gone),
            handshakes=tuple(h for h in self.handshakes if h.client not in gone),
            skipped=self.skipped + skips,
        )


def plan(mesh: Mesh, wanted: Wanted, mode_of: ModeOfPort) -> Plan:
    """The questions for the namespaces asked for."""
    ambient = {
        ns for ns in wanted.namespaces if mesh.namespace_labels.get(ns, {}).get("istio.io/dataplane-mode") == "ambient"
    }
    skipped: list[Check] = []
    clients: list[Client] = []
    servers: list[Server] = []
    cases: list[Case] = []
    if wanted.cells:
        inside = [ns for ns in wanted.namespaces if ns not in ambient]
        servers = [Server(namespace=ns, meshed=meshed) for ns in inside for meshed in (True, False)]
        clients = [Client(namespace=ns, meshed=meshed) for ns in inside for meshed in (True, False)]
        cases = list(_cells(clients, servers, [OFFERS[name] for name in wanted.offers]))
        skipped += [
            Check(
                id=f"probe/{ns}/cells",
                title=f"probe pods in {ns}",
                status=Status.SKIP,
                group="probe pods",
                reason="an ambient namespace: only the fingerprint of its pods is taken",
            )
            for ns in sorted(ambient)
        ]
    handshakes: list[Handshake] = []
    if wanted.fingerprint:
        found, left_out = targets(mesh, wanted.namespaces, mode_of)
        skipped += left_out
        for target in found:
            from_ = [ns for ns in wanted.namespaces if ns == target.namespace or (ns, target.namespace, target.pod, target.port.number) in wanted.also]
            kinds = (fingerprint.SILENT,) if target.ambient else (fingerprint.WITH_ALPN, fingerprint.WITHOUT_ALPN)
            handshakes += [
                Handshake(id=f"f{len(handshakes) + i}", client=Client(namespace=ns, meshed=False), target=target, kind=kind)
                for i, (ns, kind) in enumerate(product(from_, kinds))
            ]
        clients += sorted({h.client for h in handshakes if h.client not in clients}, key=lambda c: c.namespace)
    asking = {case.client for case in cases} | {shake.client for shake in handshakes}
    clients = [client for client in clients if client in asking]
    return Plan(
        clients=tuple(clients),
        servers=tuple(servers),
        cases=tuple(cases),
        handshakes=tuple(handshakes),
        skipped=tuple(skipped),
    )


def _cells(clients: Sequence[Client], servers: Sequence[Server], offers: Sequence[Offer]) -> Iterator[Case]:
    number = 0
    for client in clients:
        for server in servers:
            for offer in offers:
                if not (offer.meshed if client.meshed else offer.naked):
                    continue
                for port in offer.ports:
                    yield Case(id=f"c{number}", client=client, server=server, port=port, offer=offer)
                    number += 1


def ports_used(plan: Plan) -> tuple[Port, ...]:
    """The ports that the echo servers open: HTTP always, for the warm-up call."""
    used = {case.port for case in plan.cases} | {HTTP}
    return tuple(port for port in PORT_NAMES if port in used)


def targets(mesh: Mesh, namespaces: Sequence[str], mode_of: ModeOfPort) -> tuple[list[Target], list[Check]]:
    """Each port of each running pod in `namespaces`, and a SKIP for each pod that cannot be asked."""
    found: list[Target] = []
    skipped: list[Check] = []
    for pod in mesh.pods:
        meta = pod.metadata
        if meta.namespace not in namespaces or meta.labels.get("app.kubernetes.io/managed-by") == "meshtls":
            continue
        reason = _why_not(pod)
        ports = _ports(pod, mesh.services_in.get(meta.namespace, ()))
        if not reason and not ports:
            reason = "declares no port, and no Service names one"
        if reason:
            skipped.append(
                Check(
                    id=f"fingerprint/{meta.namespace}/{meta.name}",
                    title=f"mode of {meta.namespace}/{meta.name}",
                    status=Status.SKIP,
                    group="fingerprint",
                    reason=reason,
                )
            )
            continue
        workload = mesh.workload_of_pod.get((meta.namespace, meta.name))
        for port in ports:
            mode, because = mode_of(pod, port.number)
            found.append(
                Target(
                    namespace=meta.namespace,
                    pod=meta.name,
                    workload=workload.ref if workload else pod.ref,
                    address=pod_addresses(pod)[0],
                    port=port,
                    mode=mode,
                    because=because,
                    ambient=pod.captured and not pod.has_sidecar,
                )
            )
    return found, skipped


def _why_not(pod: Pod) -> str:
    if pod.metadata.deletion_timestamp:
        return "is being deleted"
    if pod.status.phase != "Running":
        return f"does not run (phase {pod.status.phase or 'unknown'})"
    if pod.spec.host_network:
        return "uses the host's network: no sidecar takes its connections"
    return "" if pod_addresses(pod) else "has no address"


def _ports(pod: Pod, services: Sequence[Service]) -> list[Port]:
    """TCP ports that its containers declare or that Services lead to, by number."""
    names: dict[str, int] = {}
    numbers: dict[int, str] = {}
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        if container.name == "istio-proxy":
            continue
        for declared in container.ports:
            if declared.protocol == "TCP" and declared.container_port:
                numbers.setdefault(declared.container_port, "")
                names[declared.name] = declared.container_port
    for service in services:
        selector = service.spec.selector
        if not selector or any(pod.metadata.labels.get(key) != value for key, value in selector.items()):
            continue
        for port in service.spec.ports:
            if port.protocol != "TCP":
                continue
            to = port.target_port or port.port
            number = names.get(to, 0) if isinstance(to, str) and not (to.isdecimal() and len(to) < 6) else int(to)
            if number:
                numbers[number] = numbers.get(number) or port.app_protocol or port.name.partition("-")[0]
    return [
        Port(number=number, protocol=protocol)
        for number, protocol in sorted(numbers.items())
        if number not in PROXY_PORTS
    ]


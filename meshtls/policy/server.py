"""The server's side: what a pod enforces on each of its ports, and what becomes of what arrives.

1. A sidecar enforces the effective PeerAuthentication on every port that it captures, declared by a Service or not; a Sidecar's
   `ingress` replaces the Services as the list of declared ports.
2. A declared port has the protocol of its oldest Service; it decides which chains there are: under PERMISSIVE, TLS that is not
   Istio's is let through to the application on TCP and detected ports, and refused on HTTP ones.
3. Where no proxy takes the traffic (no sidecar, an excluded port, interception NONE) nothing is enforced, whatever is written.
4. Gateways enforce what their Gateway says, not PeerAuthentication.

(listener_inbound.go, filterchain_options.go in pilot/pkg/networking/core.)
"""

from collections.abc import Iterable, Iterator

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.model.workload import Workload
from meshtls.policy.authn import DISABLE, PERMISSIVE, STRICT, Effective
from meshtls.policy.because import Because
from meshtls.policy.client import MTLS, PLAINTEXT, TLS
from meshtls.policy.dataplane import AMBIENT, BARE, GATEWAY, PROXYLESS, named_inbound, takes_inbound
from meshtls.policy.engine import Engine, Face
from meshtls.policy.service import AUTO, HTTP, TLS_MODE, Host, Port, parse_protocol
from meshtls.policy.shape import Shapes

WORKS, BREAKS, UNKNOWN = "WORKS", "BREAKS", "UNKNOWN"
NOTHING = "NONE"
MIXED = "MIXED"


class WorkloadMode(msgspec.Struct, frozen=True, rename="camel"):
    """One workload: `mode` is what a port that nothing declares would have; `ports` are by target port, as text.

    Modes: STRICT, PERMISSIVE, DISABLE, NONE (nothing enforces anything), MIXED (its pods differ).
    """

    namespace: str
    workload: str
    dataplane: str
    mode: str
    ports: dict[str, str]
    because: tuple[Because, ...]
    shadowed: tuple[Because, ...]


class Inbound(msgspec.Struct, frozen=True, gc=False):
    """What waits on a port: `mode`, and the protocol that the proxy takes it for (HTTP, TCP or AUTO)."""

    mode: str
    protocol: str
    because: tuple[Because, ...]


class Server:
    """One pod as a server."""

    def __init__(self, engine: Engine, face: Face) -> None:
        self.face, self.pod = face, face.pod
        self.control = engine.control(face.plane.revision)
        self._inbound: dict[int, Inbound] = {}
        self.effective: Effective | None = None
        self._declared: dict[int, str] | None = None
        self._serving: list[tuple[Host, Port, int]] | None = None
        kind = face.plane.kind
        if face.plane.sidecar or kind == PROXYLESS:
            self.effective = self.control.authn.effective(self.pod.namespace, self.pod.labels)
        elif kind == AMBIENT:
            self.effective = self.control.ambient.effective(self.pod.namespace, self.pod.labels)

    def declared(self) -> dict[int, str]:
        """Target port -> protocol, as the pod's proxy has them."""
        if self._declared is not None:
            return self._declared
        sidecar = self.control.sidecars.of(self.pod.namespace, self.pod.labels) if self.face.plane.sidecar else None
        found: dict[int, str] = {}
        if sidecar is not None and sidecar.spec.ingress:
            for entry in sidecar.spec.ingress:
                if entry.port is not None and entry.capture_mode != "NONE":
                    found.setdefault(entry.port.number, parse_protocol(entry.port.protocol))
        else:
            for _, port, target in self.serving():
                found.setdefault(target, port.protocol)
        self._declared = found
        return found

    def serving(self) -> list[tuple[Host, Port, int]]:
        """(service, its port, target port) of what the pod serves, oldest first."""
        if self._serving is None:
            self._serving = self.control.registry.serving(self.pod)
        return self._serving

    def ports(self) -> tuple[int, ...]:
        """Every port worth naming: declared by Services or containers, by a policy, or by what is captured."""
        found = set(self.declared())
        found.update(target for _, _, target in self.serving())
        for container in self.pod.spec.containers:
            if container.name != "istio-proxy":
                found.update(p.container_port for p in container.ports if p.protocol == "TCP" and p.container_port)
        if self.effective is not None:
            found.update(self.effective.ports)
        if self.face.plane.sidecar:
            found.update(named_inbound(self.pod))
        return tuple(sorted(found))

    def inbound(self, port: int) -> Inbound:
        found = self._inbound.get(port)
        if found is None:
            found = self._inbound[port] = self._look(port)
        return found

    def _look(self, port: int) -> Inbound:
        plane = self.face.plane
        protocol = self.declared().get(port, AUTO)
        if self.effective is None:
            return Inbound(NOTHING, protocol, (plane.because,))
        if plane.sidecar:
            why = takes_inbound(self.pod, port)
            if why is not None:
                return Inbound(NOTHING, protocol, (why,))
        mode = self.effective.on(port)
        because = self.effective.because
        if plane.kind == PROXYLESS:
            mode, note = _proxyless(mode, self.pod)
            because = (*because, note)
        elif port in self._real_listeners():
            mode = self.effective.mode
        return Inbound(mode, protocol, because)

    def _real_listeners(self) -> frozenset[int]:
        """Ports of a Sidecar's ingress with captureMode NONE: redirected traffic does not meet them."""
        sidecar = self.control.sidecars.of(self.pod.namespace, self.pod.labels) if self.face.plane.sidecar else None
        if sidecar is None or not sidecar.spec.ingress:
            return frozenset()
        return frozenset(e.port.number for e in sidecar.spec.ingress if e.port is not None and e.capture_mode == "NONE")

    def takes(self, port: int, sends: str, http: bool) -> tuple[str, Because | None]:
        """(verdict, why) for what arrives: plaintext, mtls or tls, with HTTP inside or not."""
        kind = self.face.plane.kind
        inbound = self.inbound(port)
        where = inbound.because[-1] if inbound.because else None
        if kind == GATEWAY:
            return UNKNOWN, Because(self.pod.ref, "", "a gateway: its Gateway decides, not PeerAuthentication")
        if inbound.mode == NOTHING:
            if sends == PLAINTEXT:
                return WORKS, None
            if sends == MTLS:
                what = "no proxy takes this port" if kind != BARE else "no sidecar"
                return BREAKS, Because(self.pod.ref, where.path if where else "", f"{what}: the application gets mTLS that it cannot read")
            return UNKNOWN, Because(self.pod.ref, "", "TLS that is not Istio's reaches the application: it decides")
        if kind == AMBIENT:
            if sends == MTLS or inbound.mode != STRICT:
                return (WORKS, None) if sends != TLS else (UNKNOWN, Because("", "", "the application decides about its TLS"))
            return BREAKS, _strict(inbound, port, "ztunnel closes what has no identity")
        return self._sidecar(inbound, port, sends, http)

    def _sidecar(self, inbound: Inbound, port: int, sends: str, http: bool) -> tuple[str, Because | None]:
        if inbound.mode == DISABLE and sends == MTLS:
            return BREAKS, _decided(inbound, port, "DISABLE: the proxy passes mTLS on to an application that cannot read it")
        if inbound.mode == STRICT and sends != MTLS:
            what = "plaintext is refused" if sends == PLAINTEXT else "TLS without a certificate of the mesh is refused"
            return BREAKS, _strict(inbound, port, what)
        if sends == TLS:
            if inbound.protocol in HTTP:
                return BREAKS, Because(self.pod.ref, "", f"port {port} is HTTP to its proxy: TLS that is not Istio's is refused")
            return UNKNOWN, Because(self.pod.ref, "", "TLS that is not Istio's reaches the application: it decides")
        if inbound.protocol in HTTP and sends == MTLS and not http:
            return BREAKS, Because(self.pod.ref, "", f"port {port} is HTTP to its proxy, and the caller's proxy sends it as TCP")
        return WORKS, None


def _decided(inbound: Inbound, port: int, says: str) -> Because:
    chosen = next((b for b in inbound.because if b.path.endswith(f"portLevelMtls.{port}")), inbound.because[0])
    return Because(chosen.object, chosen.path, says)


def _strict(inbound: Inbound, port: int, says: str) -> Because:
    return _decided(inbound, port, f"STRICT: {says}")


def _proxyless(mode: str, pod: Pod) -> tuple[str, Because]:
    path = "metadata.labels.security.istio.io/tlsMode"
    if mode == PERMISSIVE and pod.labels.get(TLS_MODE) == "istio":
        return STRICT, Because(pod.ref, path, "proxyless gRPC with this label takes PERMISSIVE as STRICT")
    if mode == PERMISSIVE:
        return DISABLE, Because(pod.ref, path, "proxyless gRPC without this label takes PERMISSIVE as plaintext only")
    return mode, Because(pod.ref, path, "proxyless gRPC")


class Servers:
    """One Server for each pod that is asked about."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._by_pod: dict[int, Server] = {}

    def of(self, pod: Pod) -> Server:
        found = self._by_pod.get(id(pod))
        if found is None:
            found = self._by_pod[id(pod)] = Server(self.engine, self.engine.face(pod))
        return found


def modes(mesh: Mesh, namespaces: Iterable[str] | None = None) -> list[WorkloadMode]:
    """The effective mode of every workload, ordered by namespace, kind and name; `namespaces` None: all."""
    wanted = None if namespaces is None else frozenset(namespaces)
    engine = Engine.of(mesh)
    shapes = Shapes(engine)
    known: dict[object, tuple[Workload, WorkloadMode]] = {}
    found: list[WorkloadMode] = []
    for workload in mesh.workloads:
        if wanted is not None and workload.namespace not in wanted:
            continue
        shape = shapes.of(workload)
        alike = known.get(shape) if shape is not None else None
        if alike is not None:
            found.append(_as(workload, *alike))
            continue
        for mode in _of(engine, workload):
            found.append(mode)
            if shape is not None:
                known[shape] = (workload, mode)
    return found


def _as(workload: Workload, other: Workload, mode: WorkloadMode) -> WorkloadMode:
    """The answer of a workload of the same shape, told of this one."""
    theirs, mine = _own_ref(other), _own_ref(workload)
    because = tuple([Because(mine, b.path, b.says) if b.object == theirs else b for b in mode.because])
    return WorkloadMode(
        workload.namespace, f"{workload.kind}/{workload.name}", mode.dataplane, mode.mode, mode.ports, because, mode.shadowed
    )


def _own_ref(workload: Workload) -> str:
    pods = workload.pods
    return f"Pod/{workload.namespace}/{pods[0].metadata.name}" if pods else f"{workload.kind}/{workload.namespace}/{workload.name}"


def _of(engine: Engine, workload: Workload) -> Iterator[WorkloadMode]:
    shapes: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[Server, int]] = {}
    seen: set[tuple[object, ...]] = set()
    for face in engine.faces_of(workload):
        key = _alike(face)
        if key in seen:
            continue
        seen.add(key)
        server = Server(engine, face)
        ports = {str(p): server.inbound(p).mode for p in server.ports()}
        shape = (face.plane.kind, _whole(server), tuple(ports.items()))
        shapes.setdefault(shape, (server, 0))
    if not shapes:
        return
    (kind, mode, ports_), (server, _) = next(iter(shapes.items()))
    because, shadowed = _why(server)
    if len(shapes) > 1:
        kinds, found = sorted({s[0] for s in shapes}), sorted({s[1] for s in shapes})
        kind = kinds[0] if len(kinds) == 1 else "mixed"
        mode = found[0] if len(found) == 1 else MIXED
        merged: dict[str, str] = {}
        for shape in shapes:
            for port, each in shape[2]:
                merged[port] = each if merged.get(port, each) == each else MIXED
        ports_ = tuple(sorted(merged.items(), key=lambda item: int(item[0])))
        because = tuple(Because(s.pod.ref, "", f"{shape[0]}: {shape[1]}") for shape, (s, _) in shapes.items()) + because
    yield WorkloadMode(workload.namespace, workload.label, kind, mode, dict(ports_), because, shadowed)


def _alike(face: Face) -> tuple[object, ...]:
    """Pods with equal keys have equal modes."""
    pod = face.pod
    return (
        face.plane.kind,
        face.plane.revision,
        tuple(pod.labels.items()),
        tuple(item for item in pod.annotations.items() if "sidecar.istio.io/" in item[0]),
        tuple(c.ports for c in pod.spec.containers),
    )


def _whole(server: Server) -> str:
    if server.effective is None:
        return NOTHING
    if server.face.plane.kind == PROXYLESS:
        return _proxyless(server.effective.mode, server.pod)[0]
    if server.face.plane.sidecar and takes_inbound(server.pod, 0) is not None:
        return NOTHING
    return server.effective.on(0)


def _why(server: Server) -> tuple[tuple[Because, ...], tuple[Because, ...]]:
    plane = server.face.plane
    if server.effective is None:
        return (plane.because,), ()
    notes = tuple(
        note
        for port in server.ports()
        if plane.sidecar and port not in server.effective.ports and (note := takes_inbound(server.pod, port)) is not None
    )
    return (*server.effective.because, plane.because, *dict.fromkeys(notes)), server.effective.shadowed

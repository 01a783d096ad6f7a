"""What the policies say of pods and ports, in the probe's words: meshtls.policy asked about the mesh with our pods in it.

Our own pods and Services are added as they were really created, so that a selector, a DestinationRule with a wildcard or a
Sidecar counts for them as for any other pod of the namespace.  What could not be read makes a mode UNKNOWN, with the reason.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshtls.model import objects as o
from meshtls.model.mesh import Mesh
from meshtls.policy.because import Because
from meshtls.policy.calls import Calls, Outcome, Where
from meshtls.policy.dataplane import GATEWAY, PROXYLESS
from meshtls.policy.engine import Engine
from meshtls.probe.case import Case, Client, Expectation, Mode, Server
from meshtls.probe.expect import expectation

_MODES = {"STRICT": Mode.STRICT, "PERMISSIVE": Mode.PERMISSIVE, "DISABLE": Mode.UNENFORCED, "NONE": Mode.UNENFORCED}
# without these, what a sidecar sends is a guess
CLIENT_SIDE = ("DestinationRule", "VirtualService", "Sidecar", "ConfigMap")


def with_ours(mesh: Mesh, live: Iterable[dict[str, Any]]) -> Mesh:
    """`mesh` with the pods and Services of a run, as the API server returned them."""
    pods, services = list(mesh.pods), list(mesh.services)
    for obj in live:
        if obj["kind"] == "Pod":
            pods.append(msgspec.convert(_filled(obj), o.Pod))
        elif obj["kind"] == "Service":
            services.append(msgspec.convert(_filled(obj), o.Service))
    return msgspec.structs.replace(mesh, pods=tuple(pods), services=tuple(services))


def _filled(value: Any) -> Any:
    """Without null entries, which Kubernetes reads as absent."""
    if isinstance(value, dict):
        return {key: _filled(entry) for key, entry in value.items() if entry is not None}
    return [_filled(entry) for entry in value] if isinstance(value, list) else value


class Known:
    """What the policies of `mesh` say. `pods` are the names of our own pods, by what they are."""

    def __init__(self, mesh: Mesh, pods: Mapping[Client | Server, str] | None = None) -> None:
        self._mesh, self._ours = mesh, pods or {}
        self._calls = Calls(Engine.of(mesh))
        self._pods = {(pod.namespace, pod.name): pod for pod in mesh.pods}

    def of_pod(self, pod: o.Pod, port: int) -> tuple[Mode, tuple[str, ...]]:
        """The mode of a pod's port, and the facts that decide it."""
        server = self._calls.servers.of(pod)
        kind = server.face.plane.kind
        if kind in (GATEWAY, PROXYLESS):
            return Mode.UNKNOWN, (f"a {kind}: PeerAuthentication does not decide for it alone",)
        absent = self._mesh.absent.get("PeerAuthentication")
        if absent and server.effective is not None:
            return Mode.UNKNOWN, (f"PeerAuthentications could not be read: {absent}",)
        inbound = server.inbound(port)
        return _MODES.get(inbound.mode, Mode.UNKNOWN), _said(inbound.because)

    def expect(self, case: Case) -> Expectation:
        """What should come of a case."""
        server, client = self._pod(case.server), self._pod(case.client)
        if server is None or client is None:
            return Expectation(outcome=None, because=("a probe pod never came up",))
        mode, because = self.of_pod(server, case.port.number)
        if not case.client.meshed:
            return expectation(case, mode, because=because)
        missing = next(
            (
                f"{kind}s could not be read: {self._mesh.absent[kind]}"
                for kind in CLIENT_SIDE
                if kind in self._mesh.absent
            ),
            "",
        )
        if missing:
            return Expectation(outcome=None, because=(*because, missing))
        sent = self._sent(case, client, server)
        return expectation(case, mode, sent.sends, (*because, *_said(sent.because)))

    def _pod(self, who: Client | Server) -> o.Pod | None:
        return self._pods.get((who.namespace, self._ours.get(who, "")))

    def _sent(self, case: Case, client: o.Pod, server: o.Pod) -> Outcome:
        """What leaves the client's sidecar."""
        engine = self._calls.engine
        face = engine.face(client)
        kind = self._calls.kind(face)
        if not case.offer.by_service:
            return self._calls.to_pod(kind, server, case.port.number)
        for host in engine.control(face.plane.revision).registry.hosts:
            for port in host.ports:
                if (host.namespace, host.name, port.number) == (server.namespace, server.name, case.port.number):
                    return self._calls.to_service(kind, Where(host, port, str(case.port.number)))
        return Outcome("none", "", (Because("", "", f"the client's control plane knows no Service {server.name}"),))


def _said(because: Iterable[Because]) -> tuple[str, ...]:
    return tuple(str(each) for each in because)

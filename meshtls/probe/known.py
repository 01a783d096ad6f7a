"""What the policies say of pods and ports, in the probe's words: meshtls.policy asked about the mesh with our pods in it.

Our own pods and Services are added as they were really created, so that a selector, a DestinationRule with a wildcard or a
Sidecar counts for them as for any other pod of the namespace.  What could not be read makes a mode UNKNOWN, with the reason.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshtls.model import objects as o
from meshtls.model.mesh import Mesh
from meshtls.policy.server import Authn
from meshtls.probe.case import Case, Expectation, Mode, Server
from meshtls.probe.expect import expectation
from meshtls.probe.plan import has_sidecar

_MODES = {"STRICT": Mode.STRICT, "PERMISSIVE": Mode.PERMISSIVE, "DISABLE": Mode.UNENFORCED}


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
    """The modes that the policies of `mesh` say. `ours`: our echo pods' names by server."""

    def __init__(self, mesh: Mesh, ours: Mapping[Server, str] = {}) -> None:
        self._mesh, self._ours = mesh, ours
        self._authn = Authn(mesh.peer_authentications, mesh.root)
        self._pods = {(pod.namespace, pod.name): pod for pod in mesh.pods}

    def of_pod(self, pod: o.Pod, port: int) -> tuple[Mode, tuple[str, ...]]:
        """The mode of a pod's port, and the facts that decide it."""
        if not has_sidecar(pod):
            if pod.annotations.get("ambient.istio.io/redirection") == "enabled":
                return Mode.UNKNOWN, ("an ambient pod: what its policies say is not computed",)
            return Mode.UNENFORCED, (f"{pod.ref} has no sidecar",)
        absent = self._mesh.absent.get("PeerAuthentication")
        if absent:
            return Mode.UNKNOWN, (f"PeerAuthentications could not be read: {absent}",)
        found = self._authn.effective(pod.namespace, pod.labels)
        return _MODES[found.on(port)], tuple(str(because) for because in found.because)

    def expect(self, case: Case) -> Expectation:
        """What should come of a case."""
        pod = self._pods.get((case.server.namespace, self._ours.get(case.server, "")))
        if pod is None:
            return Expectation(outcome=None, because=("the server's pod never came up",))
        mode, because = self.of_pod(pod, case.port.number)
        return expectation(case, mode, because=because)

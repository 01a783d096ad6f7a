"""What of a mesh is brought up: the namespace, its clients, its servers, as many as fit; and what is left out, with why. Pure.

Order: the workloads of the namespace, then who calls them, then whom they call. Whoever has several pods gets two, one where that
would not fit. What does not fit is named; where it is part of the namespace or of a known call, the rehearsal is not whole.
"""

from collections.abc import Iterable, Iterator

import msgspec

from meshtls.errors import NoData
from meshtls.model.mesh import Mesh
from meshtls.model.workload import Workload
from meshtls.policy.dataplane import AMBIENT, BARE, GATEWAY, PROXYLESS
from meshtls.policy.engine import Engine, Face
from meshtls.rehearse.calls import Call

MOST = 40
_SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease"})
_CONTROL = frozenset({"istiod", "ztunnel", "istio-cni-node", "istio-operator"})


class Left(msgspec.Struct, frozen=True, order=True):
    """What is left out. `whole` False: the rehearsal lacks an answer that it should give."""

    what: str
    why: str
    whole: bool = True


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """A workload that is stood in for: one entry a data plane, `face` is a pod that it is made after."""

    workload: Workload
    face: Face
    replicas: int
    first: bool = True

    @property
    def namespace(self) -> str:
        return self.workload.namespace

    @property
    def sidecar(self) -> bool:
        """A gateway and a proxyless client stand in as what they are to a server: a client with an identity of the mesh."""
        return self.face.plane.kind not in (BARE, AMBIENT)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, the calls between what runs, and what is left out."""

    stands: tuple[Stand, ...]
    calls: tuple[Call, ...]
    left: tuple[Left, ...] = ()

    @property
    def namespaces(self) -> frozenset[str]:
        return frozenset(stand.namespace for stand in self.stands) | {call.service[0] for call in self.calls}

    @property
    def pods(self) -> int:
        return sum(stand.replicas for stand in self.stands)


def scope(mesh: Mesh, namespace: str, calls: Iterable[Call], most: int = MOST) -> Scope:
    """What is brought up to rehearse `namespace` with at most `most` pods. Raises NoData where nothing of it can be."""
    calls, engine = tuple(calls), Engine.of(mesh)
    by_ref = {w.ref: w for w in mesh.workloads}
    left: list[Left] = []
    wanted = dict.fromkeys(ref for ref in _order(mesh, namespace, calls) if ref in by_ref)
    found: list[Stand] = []
    for ref in wanted:
        stands, reasons = _stands(by_ref[ref], engine.faces[ref])
        found += stands
        left += [Left(ref, why, ref.split("/")[1] != namespace and not any(c.client == ref for c in calls)) for why in reasons]
    if not any(stand.namespace == namespace and stand.sidecar for stand in found):
        ambient = any(face.plane.kind == AMBIENT for w in mesh.workloads if w.namespace == namespace for face in engine.faces[w.ref])
        why = f"{namespace} is ambient, and the lab has no ambient data plane" if ambient else f"no workload of {namespace} would have a sidecar"
        raise NoData(f"nothing to rehearse: {why}", f"meshtls predict SOURCE --strict {namespace} says what STRICT would do there")
    if sum(stand.replicas for stand in found) > most:
        found = [msgspec.structs.replace(stand, replicas=1) for stand in found]
    left += [Left(stand.workload.ref, f"no room: --max-pods is {most}, give more if this machine has it", False) for stand in found[most:]]
    found = found[:most]
    running = {stand.workload.ref for stand in found}
    kept = []
    for call in calls:
        if why := _lost(mesh, call, running, by_ref):
            left.append(Left(str(call), why, False))
        else:
            kept.append(call)
    return Scope(stands=tuple(found), calls=tuple(kept), left=tuple(dict.fromkeys(left)))


def _order(mesh: Mesh, namespace: str, calls: tuple[Call, ...]) -> Iterator[str]:
    """Refs of workloads, the most important first: of the namespace those that are called, the others; then clients, then servers."""
    called = {ref for call in calls if call.service[0] == namespace for ref in serving(mesh, call)}
    own = [w.ref for w in mesh.workloads if w.namespace == namespace]
    yield from sorted(own, key=lambda ref: ref not in called)
    yield from (call.client for call in calls if call.service[0] == namespace)
    yield from (ref for call in calls if call.home == namespace for ref in serving(mesh, call))


def serving(mesh: Mesh, call: Call) -> list[str]:
    """Refs of the workloads that the call's Service selects."""
    service = mesh.services_by_name.get(call.service)
    if service is None or not service.spec.selector:
        return []
    chosen = service.spec.selector.items()
    return [w.ref for w in mesh.workloads if w.namespace == service.namespace and any(chosen <= pod.labels.items() for pod in w.faces)]


def _stands(workload: Workload, faces: tuple[Face, ...]) -> tuple[list[Stand], list[str]]:
    """One stand-in for each way in which the workload's pods are in the mesh, and why others have none."""
    if workload.namespace in _SYSTEM or workload.name in _CONTROL or any(f.pod.labels.get("app") == "istiod" for f in faces):
        return [], ["is part of the cluster's or the mesh's own machinery, which the lab has of its own"]
    if not faces or (not workload.pods and _declared(workload) == 0):
        return [], ["nothing of it runs"]
    stands: list[Stand] = []
    reasons = []
    for sidecar in (True, False):
        alike = [face for face in faces if face.plane.kind != AMBIENT and (face.plane.kind != BARE) == sidecar]
        if alike:
            stands.append(Stand(workload=workload, face=alike[0], replicas=min(2, _count(workload, alike)), first=not stands))
    if any(face.plane.kind == AMBIENT for face in faces):
        reasons.append("is ambient, and the lab has no ambient data plane")
    return stands, reasons


def _count(workload: Workload, faces: list[Face]) -> int:
    if workload.kind in ("DaemonSet", "Pod", "Job", "CronJob"):
        return 1
    return len(faces) if workload.pods else _declared(workload)


def _declared(workload: Workload) -> int:
    declared = getattr(getattr(workload.owner, "spec", None), "replicas", None)
    return 1 if declared is None else int(declared)


def _lost(mesh: Mesh, call: Call, running: set[str], by_ref: dict[str, Workload]) -> str:
    """Why a call is not made; "" where it is."""
    if call.client not in by_ref:
        return "the client is not in the source"
    if call.client not in running:
        return "the client has no stand-in"
    service = mesh.services_by_name[call.service]
    if service.spec.type == "ExternalName" or not service.spec.selector:
        return "the Service leads out of the source, and nothing stands in for what is there"
    if not running.intersection(serving(mesh, call)):
        return "no workload behind the Service has a stand-in"
    return ""


def gateways(found: Scope) -> list[str]:
    """Workloads that stand in as something simpler than they are."""
    return [stand.workload.ref for stand in found.stands if stand.face.plane.kind in (GATEWAY, PROXYLESS)]

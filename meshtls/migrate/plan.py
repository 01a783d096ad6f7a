"""What a migration of one namespace would change, in which order: a pure function of what is declared.

    permissive   only from DISABLE: clients and servers learn of a change independently, so DISABLE goes by way of PERMISSIVE
    canary       one workload STRICT, by the policy that already selects it alone, else by one of ours
    namespace    the policy that wins namespace-wide patched in place (a new object would be younger, and lose), else `default`

The canary's policy is temporary: it goes when the namespace is STRICT. The canary is the workload that risks least, so
that a stage is a test and not a leap; where the user goes on past plaintext, it is the workload that receives it, so that
the smallest change tells what breaks. A workload whose own policy says DISABLE is none: that would be DISABLE to STRICT
at once. Policies of workloads are not changed to stay: the notes say which ports they keep from being STRICT.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshtls.errors import InputError
from meshtls.model.mesh import Mesh
from meshtls.model.objects import PeerAuthentication, Pod, Service
from meshtls.model.workload import Workload
from meshtls.policy.authn import DISABLE, PERMISSIVE, STRICT, UNSET, Authn, mode_of, ports_of
from meshtls.policy.select import subset

CANARY_PREFIX = "meshtls-canary-"
# labels that differ between pods of one workload, or that others write
_VOLATILE = ("pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
             "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")
_VOLATILE_PREFIXES = ("security.istio.io/", "service.istio.io/", "sidecar.istio.io/", "topology.istio.io/")
_KIND_RISK = {"Deployment": 0, "ReplicaSet": 0, "DaemonSet": 1, "Pod": 1, "StatefulSet": 2}


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `policy` is the PeerAuthentication's name, `uid` the object that it must be ("" where it is made here).

    `found` is the mode that the object says before, `mode` the one it says after. `selector` is empty for the whole
    namespace. `workloads` are the refs that it concerns. A `temporary` change is taken back when all stages have passed.
    """

    id: str
    policy: str
    create: bool
    mode: str
    uid: str = ""
    found: str = ""
    selector: dict[str, str] = {}
    temporary: bool = False
    workloads: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The stages in order; none where the namespace is STRICT already. `was` is its mode now; `notes` are for the user."""

    namespace: str
    was: str
    stages: tuple[Stage, ...]
    canary: str = ""
    notes: tuple[str, ...] = ()


class Arrivals(msgspec.Struct, frozen=True):
    """How many arrivals of a workload were logged."""

    mtls: int = 0
    plaintext: int = 0


def plan(
    mesh: Mesh, namespace: str, *, canary: str = "", arrivals: Mapping[str, Arrivals] | None = None,
    troubled: Iterable[str] = (), past_plaintext: bool = False,
) -> Plan:
    """The stages that take `namespace` to STRICT.

    `canary` names a workload (`name` or `Kind/name`), "" leaves the choice; `arrivals` and `troubled` (refs with
    findings) inform it. Raises InputError for a canary that cannot be one, and for the mesh's root namespace.
    """
    if namespace == mesh.root:
        raise InputError(
            f"{namespace} is the mesh's root namespace: STRICT there means every namespace without a policy of its own",
            "migrate the namespaces one by one first",
        )
    authn = Authn(mesh.peer_authentications, mesh.root)
    was, _ = authn.hint(namespace)
    wide = authn.wide(namespace)
    workloads = tuple(w for w in mesh.workloads if w.namespace == namespace and injected(w))
    kept = tuple(note for workload in workloads for note in _kept(mesh, authn, workload))
    if was == STRICT:
        return Plan(namespace=namespace, was=was, stages=(), notes=("the namespace is STRICT already", *kept))
    refs = tuple(w.ref for w in workloads)
    stages: list[Stage] = []
    if was == DISABLE:
        stages.append(_wide_stage("permissive", wide, PERMISSIVE, refs))
        # from here on the policy exists
        found = PERMISSIVE
    else:
        found = mode_of(wide) if wide else ""
    chosen, notes = _choose(mesh, authn, workloads, canary, arrivals or {}, frozenset(troubled), past_plaintext)
    if chosen:
        stages.append(chosen)
    last = _wide_stage("namespace", wide, STRICT, refs)
    if was == DISABLE:
        last = msgspec.structs.replace(last, create=False, found=found, uid=wide.metadata.uid if wide else "")
    stages.append(last)
    return Plan(namespace=namespace, was=was, stages=tuple(stages), notes=(*notes, *kept), canary=chosen.workloads[0] if chosen else "")


def _kept(mesh: Mesh, authn: Authn, workload: Workload) -> list[str]:
    """What a workload's own policy goes on to keep from being STRICT; of ports that it is not known to have, the audit tells."""
    labels = common_labels(workload.pods)
    own = next(iter(authn.selects(workload.namespace, labels)), None)
    if own is None:
        return []
    known = _ports(mesh, workload, labels)
    modes = [
        (f" on port {port}", mode) for port, mode in sorted(ports_of(own).items())
        if mode not in (STRICT, UNSET) and (port in known or not known)
    ]  # fmt: skip
    if mode_of(own) not in (STRICT, UNSET):
        modes.insert(0, ("", mode_of(own)))
    return [f"{workload.ref} stays {mode}{where}: PeerAuthentication {own.name} says so" for where, mode in modes]


def _wide_stage(id_: str, wide: PeerAuthentication | None, mode: str, refs: tuple[str, ...]) -> Stage:
    if wide is None:
        return Stage(id=id_, policy="default", create=True, mode=mode, workloads=refs)
    return Stage(id=id_, policy=wide.name, create=False, mode=mode, uid=wide.metadata.uid, found=mode_of(wide), workloads=refs)


def _choose(
    mesh: Mesh, authn: Authn, workloads: tuple[Workload, ...], wanted: str, arrivals: Mapping[str, Arrivals],
    troubled: frozenset[str], past_plaintext: bool,
) -> tuple[Stage | None, tuple[str, ...]]:
    """The canary's stage; or none, with a note that says why."""
    possible: list[tuple[tuple[object, ...], Stage]] = []
    reasons: dict[str, str] = {}
    for workload in workloads:
        answer = _as_canary(mesh, authn, workload)
        if isinstance(answer, str):
            reasons[workload.ref] = answer
            continue
        seen = arrivals.get(workload.ref, Arrivals())
        rank = (
            not (past_plaintext and seen.plaintext), workload.ref in troubled, seen.mtls == 0, not answer.create,
            _KIND_RISK.get(workload.kind, 3), workload.name,
        )
        possible.append((rank, answer))
    if wanted:
        for _, stage in possible:
            if _named(stage.workloads[0], wanted):
                return stage, ()
        for ref, reason in reasons.items():
            if _named(ref, wanted):
                raise InputError(f"{ref} cannot be the canary: {reason}", "name another one, or leave --canary out")
        raise InputError(f"--canary {wanted}: no workload of that name with a sidecar", "meshtls modes -n NS lists them")
    if not possible:
        why = "; ".join(f"{ref} {reason}" for ref, reason in list(reasons.items())[:3]) or "no workload has a sidecar"
        return None, (f"no canary: {why}",)
    return min(possible, key=lambda pair: pair[0])[1], ()


def _named(ref: str, wanted: str) -> bool:
    kind, _, name = ref.split("/")
    return wanted in (name, f"{kind}/{name}", ref)


def _as_canary(mesh: Mesh, authn: Authn, workload: Workload) -> Stage | str:
    """The stage that makes this workload STRICT alone, or why there is none."""
    labels = common_labels(workload.pods)
    if authn.effective(workload.namespace, labels).mode == STRICT:
        return "is STRICT already"
    if not _listens(mesh, workload, labels):
        return "declares no port and no Service selects it, so nothing could be proved"
    others = [w for w in mesh.workloads if w.namespace == workload.namespace and w.ref != workload.ref]

    def alone(selector: Mapping[str, str]) -> bool:
        return bool(selector) and not any(subset(selector, pod.labels) for other in others for pod in other.faces)

    def stage(policy: str, create: bool, selector: dict[str, str], uid: str = "", found: str = "") -> Stage:
        return Stage(id="canary", policy=policy, create=create, mode=STRICT, uid=uid, found=found, selector=selector, temporary=True,
                     workloads=(workload.ref,))

    policies = authn.selects(workload.namespace, labels)
    if policies:
        oldest = policies[0]
        selector = oldest.spec.selector.match_labels if oldest.spec.selector else {}
        if mode_of(oldest) == DISABLE:
            return f"is DISABLE by {oldest.name}: it would have to be PERMISSIVE first"
        if not alone(selector):
            return f"is selected by {oldest.name} together with other workloads"
        return stage(oldest.name, False, selector, uid=oldest.metadata.uid, found=mode_of(oldest))
    own = getattr(getattr(workload.owner, "spec", None), "selector", None)
    selector = getattr(own, "match_labels", None) or labels
    if not alone(selector):
        return "has no labels of its own"
    return stage(f"{CANARY_PREFIX}{workload.name}"[:253], True, selector)


def _listens(mesh: Mesh, workload: Workload, labels: Mapping[str, str]) -> bool:
    return bool(_ports(mesh, workload, labels)) or any(True for _ in _services(mesh, workload, labels))


def _ports(mesh: Mesh, workload: Workload, labels: Mapping[str, str]) -> set[int]:
    """The ports that its containers declare, or that Services send to by number."""
    declared = {p.container_port for pod in workload.pods for c in pod.spec.containers if c.name != "istio-proxy" for p in c.ports}
    named = {p.target_port or p.port for service in _services(mesh, workload, labels) for p in service.spec.ports}
    return declared | {port for port in named if isinstance(port, int)}


def _services(mesh: Mesh, workload: Workload, labels: Mapping[str, str]) -> Iterator[Service]:
    return (s for s in mesh.services_in.get(workload.namespace, ()) if s.spec.selector and subset(s.spec.selector, labels))


def common_labels(pods: Iterable[Pod]) -> dict[str, str]:
    """The labels that all pods share and that stay the same when a pod is replaced."""
    sets = [set(pod.labels.items()) for pod in pods]
    shared = set.intersection(*sets) if sets else set()
    return {k: v for k, v in sorted(shared) if k not in _VOLATILE and not k.startswith(_VOLATILE_PREFIXES)}


def injected(workload: Workload) -> bool:
    """Whether pods of it run with a sidecar, or captured by ztunnel; meshtls' own probes do not count."""
    return any(
        pod.status.phase == "Running" and pod.labels.get("app.kubernetes.io/managed-by") != "meshtls"
        and (pod.captured or pod.has_sidecar)
        for pod in workload.pods
    )

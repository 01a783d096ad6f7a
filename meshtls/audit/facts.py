"""Facts: what rules ask of a Mesh again and again, each computed once.

A workload is judged by its faces: one pod for each way in which its running pods differ, or the pod that its template
would become. So ten thousand equal pods cost as much as one. Which mode is in force and whether a proxy is there is
answered by `meshtls.policy`, never here.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from meshtls.model import objects as o
from meshtls.model.mesh import Mesh, by_namespace
from meshtls.model.workload import Workload
from meshtls.policy import dataplane
from meshtls.policy.ambient import Ambient
from meshtls.policy.authn import Authn, Effective, is_wide
from meshtls.policy.authn import mode_of as mode
from meshtls.policy.engine import ControlPlane, Engine
from meshtls.policy.inject import Injector
from meshtls.policy.select import age
from meshtls.policy.select import subset as matches
from meshtls.policy.service import target_port

SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
_PER_POD = ("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index",
            "controller-revision-hash", "controller-uid", "batch.kubernetes.io/controller-uid", "job-name",
            "batch.kubernetes.io/job-name")
_TEMPLATE = "pod-template-hash"
_MOST_FACES = 4


class Facts:
    """The Mesh and its memoised answers. Made anew for each audit; nothing in it changes a Mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._known: dict[int, _Known] = {}
        self._behind: dict[str, tuple[Workload, ...]] = {}
        self._memos: dict[str, dict[str, Any]] = {}

    def memo(self, name: str) -> dict[str, Any]:
        """A store for answers that a module computes once a workload."""
        return self._memos.setdefault(name, {})

    # --- workloads ---------------------------------------------------------------------------------------------------

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """Every workload outside Kubernetes' own namespaces."""
        return tuple(w for w in self.mesh.workloads if w.namespace not in SYSTEM)

    @cached_property
    def workloads_in(self) -> dict[str, tuple[Workload, ...]]:
        """Workloads by namespace."""
        found: dict[str, list[Workload]] = {}
        for w in self.mesh.workloads:
            found.setdefault(w.namespace, []).append(w)
        return {ns: tuple(ws) for ns, ws in found.items()}

    def _of(self, w: Workload) -> "_Known":
        """What is known of a workload of the mesh; by identity, since nothing is asked as often."""
        try:
            return self._known[id(w)]
        except KeyError:
            known = self._known[id(w)] = _Known(w)
            return known

    def faces(self, w: Workload) -> tuple[o.Pod, ...]:
        """Pods of `w` that differ in labels, annotations or containers; at most four."""
        return self._of(w).faces

    def face(self, w: Workload) -> o.Pod:
        """The first of them."""
        return self._of(w).faces[0]

    def plane(self, w: Workload) -> str:
        """`sidecar`, `native-sidecar`, `ambient`, `gateway`, `proxyless` or `none`: of its pods, or of what they would be."""
        known = self._of(w)
        if not known.plane:
            known.plane = self.plane_of(known.faces[0], w.ref)
        return known.plane

    def plane_of(self, pod: o.Pod, ref: str = "") -> str:
        """The same of one pod, or of one to be."""
        return self._plane_of(pod, ref or pod.ref).kind

    def _plane_of(self, pod: o.Pod, ref: str) -> dataplane.Plane:
        return dataplane.to_be(pod, ref, self.injector, self.mesh)[0] if dataplane.is_manifest(pod) else dataplane.of_pod(pod)

    def would_be(self, w: Workload) -> str:
        """The plane that pods made from its template now would have."""
        return self.plane_of(msgspec.structs.replace(w, pods=()).faces[0], w.ref)

    @cached_property
    def injector(self) -> Injector:
        """The injection of this mesh."""
        return self.engine.injector

    @cached_property
    def engine(self) -> Engine:
        """The policy engine of this mesh: what each revision's istiod reads."""
        return Engine.of(self.mesh)

    def sidecar(self, w: Workload) -> bool:
        """Has it a proxy of its own that enforces PeerAuthentication?"""
        return self.plane(w) in ("sidecar", "native-sidecar")

    def classic(self, w: Workload) -> bool:
        """Is its sidecar an ordinary container, which starts and ends beside the application?"""
        return any(c.name == "istio-proxy" for c in self.face(w).spec.containers) and self.sidecar(w)

    def meshed(self, w: Workload) -> bool:
        """Does PeerAuthentication apply to what it receives?"""
        return self.plane(w) in ("sidecar", "native-sidecar", "ambient")

    @cached_property
    def sidecars(self) -> tuple[Workload, ...]:
        """Workloads with a sidecar."""
        return tuple(w for w in self.workloads if self.sidecar(w))

    @cached_property
    def ambient(self) -> tuple[Workload, ...]:
        """Workloads that ztunnel captures."""
        return tuple(w for w in self.workloads if self.plane(w) == "ambient")

    @cached_property
    def in_mesh(self) -> tuple[Workload, ...]:
        """Both of them."""
        return tuple(w for w in self.workloads if self.meshed(w))

    @cached_property
    def meshed_namespaces(self) -> frozenset[str]:
        """Namespaces with at least one workload in the mesh."""
        return frozenset(w.namespace for w in self.in_mesh)

    @cached_property
    def lone(self) -> frozenset[str]:
        """Refs of workloads with a network of their own and no proxy."""
        return frozenset(w.ref for w in self.workloads if self.plane(w) == "none" and not self.face(w).spec.host_network)

    @cached_property
    def unknown_namespaces(self) -> tuple[str, ...]:
        """Namespaces that workloads live in and whose labels are not in the input, so that nobody knows whether they inject."""
        known = self.mesh.namespace_labels
        return tuple(sorted({w.namespace for w in self.workloads if w.namespace not in known and not w.pods}))

    @property
    def webhooks(self) -> tuple[o.ValidatingWebhookConfiguration | o.MutatingWebhookConfiguration, ...]:
        """Both kinds of admission webhooks."""
        return (*self.mesh.validating_webhooks, *self.mesh.mutating_webhooks)

    @cached_property
    def istiods(self) -> tuple[tuple[int, int, int], ...]:
        """The versions of istiod that the input shows by their images, the oldest first."""
        images = (c.image for d in self.mesh.deployments for c in d.template.spec.containers)
        found = (re.search(r"/pilot[^/:@]*:v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", image) for image in images)
        return tuple(sorted((int(m[1]), int(m[2]), int(m[3] or 0)) for m in found if m))

    @cached_property
    def injector_values(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """(ref, Helm values) of each injector's ConfigMap: what it does to every pod that says nothing else."""
        found = []
        for config in self.mesh.config_maps:
            if config.name.startswith("istio-sidecar-injector") and "values" in config.data:
                try:
                    values = msgspec.json.decode(config.data["values"])
                except (msgspec.DecodeError, RecursionError):
                    continue
                if isinstance(values, dict):
                    found.append((config.ref, values))
        return tuple(found)

    # --- services ----------------------------------------------------------------------------------------------------

    def behind(self, service: o.Service) -> tuple[Workload, ...]:
        """Workloads whose pods a Service selects; none for a Service without selector."""
        found = self._behind.get(service.ref)
        if found is None:
            selector = service.spec.selector
            found = self._behind[service.ref] = tuple(
                w for w in self.selected(service.namespace, selector) if w.kind not in ("Job", "CronJob")) if selector else ()
        return found

    def selected(self, namespace: str, labels: dict[str, str]) -> Iterator[Workload]:
        """Workloads of a namespace that have a pod with all of `labels`, which must not be empty."""
        first = next(iter(labels.items()))
        for w in self._labelled.get((namespace, *first), ()):
            if len(labels) == 1 or any(matches(labels, face.metadata.labels) for face in self.faces(w)):
                yield w

    @cached_property
    def _labelled(self) -> dict[tuple[str, str, str], list[Workload]]:
        """(namespace, label, value) -> the workloads with such a pod."""
        found: dict[tuple[str, str, str], list[Workload]] = {}
        for w in self.mesh.workloads:
            faces = self.faces(w)
            labels = faces[0].metadata.labels.items()
            for key, value in labels if len(faces) == 1 else {pair for face in faces for pair in face.metadata.labels.items()}:
                found.setdefault((w.namespace, key, value), []).append(w)
        return found

    @cached_property
    def services_of(self) -> dict[str, tuple[o.Service, ...]]:
        """Workload ref -> the Services that select its pods."""
        found: dict[str, list[o.Service]] = {}
        for service in self.mesh.services:
            for w in self.behind(service):
                found.setdefault(w.ref, []).append(service)
        return {ref: tuple(services) for ref, services in found.items()}

    def target(self, port: o.ServicePort, w: Workload) -> int:
        """The number of the pod's port behind a Service port; 0 for a name that the pod does not have."""
        return target_port(self.face(w), port) or 0

    def ports(self, w: Workload) -> dict[int, tuple[str, str]]:
        """TCP ports of the pod that a Service or a container names: number -> (name, appProtocol), a Service's first."""
        known = self._of(w)
        if known.ports is None:
            found: dict[int, tuple[str, str]] = {}
            for service in self.services_of.get(w.ref, ()):
                for port in service.spec.ports:
                    if port.protocol in ("TCP", "") and (number := self.target(port, w)):
                        found.setdefault(number, (port.name, port.app_protocol))
            for container in application(self.face(w)):
                for own in container.ports:
                    if own.protocol in ("TCP", ""):
                        found.setdefault(own.container_port, (own.name, ""))
            known.ports = found
        return known.ports

    def service(self, host: str, namespace: str) -> o.Service | None:
        """The Service that a host name means for a configuration object in `namespace`; None for anything else."""
        parts = host.rstrip(".").split(".")
        if len(parts) == 1:
            key = (namespace, parts[0])
        elif len(parts) == 2 or (len(parts) > 2 and parts[2] == "svc"):
            key = (parts[1], parts[0])
        else:
            return None
        return self.mesh.services_by_name.get(key)

    # --- modes -------------------------------------------------------------------------------------------------------

    @cached_property
    def policies(self) -> dict[str, tuple[o.PeerAuthentication, ...]]:
        """PeerAuthentications by namespace, the oldest first."""
        return by_namespace(sorted(self.mesh.peer_authentications, key=age))

    def _revision(self, w: Workload) -> str:
        """Whose istiod serves its pods ("" the default's)."""
        return self._plane_of(self.face(w), w.ref).revision

    @cached_property
    def _strict(self) -> dict[int, tuple[Authn, Ambient]]:
        """Control plane -> its policies, had every namespace's policy said STRICT; workload policies are as they are."""
        return {}

    def _after(self, plane: ControlPlane) -> tuple[Authn, Ambient]:
        found = self._strict.get(id(plane))
        if found is None:
            strict = o.PeerAuthenticationSpec(mtls=o.MutualTls(mode="STRICT"))
            made = [o.PeerAuthentication(metadata=o.Metadata(name="default", namespace=ns), spec=strict)
                    for ns in {*self.workloads_in, plane.root}]
            policies = [*made, *(p for p in plane.mesh.peer_authentications if not is_wide(p))]
            found = self._strict[id(plane)] = Authn(policies, plane.root), Ambient(policies, plane.root)
        return found

    def wide(self, namespace: str) -> o.PeerAuthentication | None:
        """The policy without selector that wins in a namespace."""
        return self.engine.control("").authn.wide(namespace)

    def own(self, w: Workload) -> tuple[o.PeerAuthentication, ...]:
        """The policies with a selector that match `w`, the winner first; none in the root namespace."""
        known = self._of(w)
        if known.own is None:
            known.own = tuple(self.engine.control(self._revision(w)).authn.selects(w.namespace, known.faces[0].metadata.labels))
        return known.own

    def decider(self, namespace: str) -> o.PeerAuthentication | None:
        """The policy that sets the mode of a namespace: its own, else the mesh's; None where neither sets one."""
        said = (self.wide(namespace), self.wide(self.mesh.root))
        return next((policy for policy in said if policy and mode(policy) != "UNSET"), None)

    def namespace_mode(self, namespace: str) -> str:
        """The mode that mesh and namespace policies give."""
        return self.engine.control("").authn.hint(namespace)[0]

    def mode(self, w: Workload, port: int = 0) -> str:
        """The mode in force for `w` (and one of its ports): STRICT, PERMISSIVE or DISABLE."""
        return self.effective(w).on(port)

    def effective(self, w: Workload) -> Effective:
        """The same with all its ports and reasons."""
        known = self._of(w)
        if known.now is None:
            plane = self.engine.control(self._revision(w))
            known.now = self._effective(w, plane.authn, plane.ambient)
        return known.now

    def written(self, w: Workload) -> str:
        """The mode that its policies add up to, whatever its data plane makes of it."""
        return self.engine.control(self._revision(w)).authn.effective(w.namespace, self.face(w).metadata.labels).mode

    def after(self, w: Workload, port: int = 0) -> str:
        """The same once its namespace's policy says STRICT: what workload policies except stays excepted."""
        known = self._of(w)
        if known.strict is None:
            known.strict = self._effective(w, *self._after(self.engine.control(self._revision(w))))
        return known.strict.on(port)

    def _effective(self, w: Workload, authn: Authn, ambient: Ambient) -> Effective:
        engine = ambient if self.plane(w) == "ambient" else authn
        return engine.effective(w.namespace, self.face(w).metadata.labels)

    def refuses(self, w: Workload, port: int = 0) -> bool:
        """Would STRICT in its namespace make `w` refuse plaintext on `port`? False where it is not captured."""
        return self.meshed(w) and self.after(w, port) == "STRICT" and not (port and self.skipped(w, port))

    def skipped(self, w: Workload, port: int) -> bool:
        """Does the traffic to `port` reach the application past its sidecar?"""
        return self.sidecar(w) and dataplane.takes_inbound(self.face(w), port) is not None


class _Known:
    """The memory of one workload; what is None was not asked yet."""

    __slots__ = ("faces", "now", "own", "plane", "ports", "strict", "workload")

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.faces = workload.faces if len(workload.pods) < 2 else _distinct(workload.pods)
        self.plane = ""
        self.ports: dict[int, tuple[str, str]] | None = None
        self.own: tuple[o.PeerAuthentication, ...] | None = None
        self.now: Effective | None = None
        self.strict: Effective | None = None


def application(pod: o.Pod) -> tuple[o.Container, ...]:
    """The containers that are not Istio's."""
    return tuple(c for c in pod.spec.containers if c.name != "istio-proxy")


def inside(w: Workload, *path: str) -> tuple[str, ...]:
    """The path of a pod's field within the object that makes it, so that a finding points to the line."""
    if w.kind == "Pod":
        return path
    return ("spec", "jobTemplate", "spec", "template", *path) if w.kind == "CronJob" else ("spec", "template", *path)


def finished(w: Workload) -> bool:
    """Is it a job that has run and will not run again?"""
    job = w.owner
    return isinstance(job, o.Job) and bool(job.status.completion_time or any(c.type in ("Complete", "Failed") for c in job.status.conditions))


def selective(policy: o.PeerAuthentication) -> bool:
    """Has it a selector that says something?"""
    return not is_wide(policy)


def numbers(text: str) -> frozenset[int]:
    """The ports in an annotation such as `8080, 9000`."""
    return frozenset(n for part in text.split(",") if (n := number(part.strip())))


def section(values: Any, *path: str) -> dict[str, Any]:
    """The mapping at a path of plain values; empty where there is none."""
    for step in path:
        values = values.get(step) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def port_of(wanted: int | str, container: o.Container) -> int:
    """The port that a probe or a monitor of a container names; 0 for a name that it does not have."""
    if isinstance(wanted, int) or number(wanted):
        return number(str(wanted))
    return next((p.container_port for p in container.ports if p.name == wanted), 0)


def number(text: str) -> int:
    """The port that a text names; 0 for one that names none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _distinct(pods: tuple[o.Pod, ...]) -> tuple[o.Pod, ...]:
    found = [pods[0]]
    for pod in pods:
        if len(found) >= _MOST_FACES:
            break
        if not any(_alike(pod, other) for other in found):
            found.append(pod)
    return tuple(found)


def _alike(a: o.Pod, b: o.Pod) -> bool:
    """Would every rule judge the two alike? Pods of one template differ by what admission did, which labels and notes show."""
    one, other = a.metadata, b.metadata
    if one.annotations != other.annotations or len(a.spec.containers) != len(b.spec.containers):
        return False
    if len(a.spec.init_containers) != len(b.spec.init_containers):
        return False
    if one.labels == other.labels and _TEMPLATE in one.labels:
        return True
    return (_stable(one.labels) == _stable(other.labels) and a.spec.containers == b.spec.containers
            and a.spec.init_containers == b.spec.init_containers)


def _stable(labels: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in labels.items() if k not in _PER_POD}

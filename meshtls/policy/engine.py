"""The engine: one mesh with everything that questions share, each part built on first use.

A `ControlPlane` is what one revision of istiod reads: objects of other revisions (label `istio.io/rev`) and of namespaces
outside of its discovery selectors do not exist for it. An `Engine` knows the pods of every workload, running or to be, with
their data plane.
"""

from functools import cached_property

import msgspec

from meshtls.model.kinds import READ
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.model.workload import Workload
from meshtls.policy import backend_tls, gateway_routes
from meshtls.policy.ambient import Ambient
from meshtls.policy.attached import Ignored
from meshtls.policy.authn import Authn
from meshtls.policy.backend_tls import BackendRule
from meshtls.policy.dataplane import Plane, is_manifest, of_pod, to_be
from meshtls.policy.inject import Injector
from meshtls.policy.registry import Registry
from meshtls.policy.routes import Aged, Virtual, read
from meshtls.policy.rules import Rules
from meshtls.policy.scope import Sidecars
from meshtls.policy.select import matches

# the kinds that discovery selectors hide with their namespace, and among them those that a revision label hides
_HIDDEN = frozenset(
    {
        "pods", "services", "endpoint_slices", "peer_authentications", "destination_rules", "virtual_services", "sidecars",
        "service_entries", "workload_entries", "authorization_policies", "envoy_filters", "gateways", "telemetries",
        "http_routes", "grpc_routes", "tcp_routes", "tls_routes", "backend_tls_policies",
    }
)  # fmt: skip
_ISTIO = _HIDDEN - {"pods", "services", "endpoint_slices"}


class Face(msgspec.Struct, frozen=True, gc=False):
    """A pod that a workload is judged by: one that runs, or one that would; `pod` carries the labels it would have."""

    pod: Pod
    plane: Plane


class ControlPlane:
    """What istiod of one revision knows."""

    def __init__(self, engine: "Engine", revision: str) -> None:
        self.config = engine.mesh.config_of(revision)
        self._engine, self._revision = engine, revision
        self.mesh = _narrowed(engine.mesh, revision or self.config.revision, engine)
        self.root = self.config.root_namespace

    @cached_property
    def authn(self) -> Authn:
        return Authn(self.mesh.peer_authentications, self.root)

    @cached_property
    def ambient(self) -> Ambient:
        return Ambient(self.mesh.peer_authentications, self.root)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.mesh, self.config, lambda: self._engine.faces_in)

    @cached_property
    def rules(self) -> Rules:
        exports = self.config.default_destination_rule_export_to
        return Rules((*self.backend_rules, *self.mesh.destination_rules), self.root, exports, self._engine.domain)

    @cached_property
    def sidecars(self) -> Sidecars:
        return Sidecars(self.mesh.sidecars, self.root)

    @cached_property
    def virtual(self) -> tuple[Virtual, ...]:
        exports = self.config.default_virtual_service_export_to
        return read(self.mesh.virtual_services, exports, self._engine.domain, self._routes[0])

    @cached_property
    def _routes(self) -> tuple[tuple[Aged, ...], tuple[Ignored, ...]]:
        return gateway_routes.read(self.mesh, self.config.default_virtual_service_export_to)

    @cached_property
    def _backends(self) -> tuple[tuple[BackendRule, ...], tuple[Ignored, ...]]:
        return backend_tls.read(self.mesh)

    @property
    def backend_rules(self) -> tuple[BackendRule, ...]:
        """The DestinationRules that BackendTLSPolicies become."""
        return self._backends[0]

    @property
    def ignored(self) -> tuple[Ignored, ...]:
        """Gateway API objects of the mesh, and parts of them, that this control plane does not use."""
        return (*self._routes[1], *self._backends[1])


def _narrowed(mesh: Mesh, revision: str, engine: "Engine") -> Mesh:
    selectors = engine.mesh.config_of(revision).discovery_selectors
    seen = (
        {ns for ns, labels in mesh.namespace_labels.items() if any(matches(s, labels) for s in selectors)}
        if selectors
        else None
    )
    changed = {}
    for field, _, _ in READ:
        if field not in _HIDDEN:
            continue
        objects = getattr(mesh, field)
        kept = tuple(
            o
            for o in objects
            if (seen is None or o.metadata.namespace in seen)
            and (field not in _ISTIO or o.metadata.labels.get("istio.io/rev", revision) == revision)
        )
        if len(kept) != len(objects):
            changed[field] = kept
    return msgspec.structs.replace(mesh, **changed) if changed else mesh


class Engine:
    """Everything that answers about one mesh share.

    `domain` completes short host names in DestinationRules and VirtualServices, as istiod's flag `--domain` does.
    """

    def __init__(self, mesh: Mesh, domain: str = "cluster.local") -> None:
        self.mesh, self.domain = mesh, domain
        self._planes: dict[str, ControlPlane] = {}

    @staticmethod
    def of(mesh: Mesh, domain: str = "cluster.local") -> "Engine":
        """The mesh's engine; the same one each time. The first caller's `domain` counts."""
        found = mesh.__dict__.get("_engine")
        if found is None:
            found = mesh.__dict__["_engine"] = Engine(mesh, domain)
        return found

    @cached_property
    def injector(self) -> Injector:
        return Injector(self.mesh)

    def control(self, revision: str) -> ControlPlane:
        """The control plane that serves proxies of a revision; revisions that nothing tells apart share one."""
        if revision not in self.mesh.configs and revision not in self._labelled:
            revision = ""
        found = self._planes.get(revision)
        if found is None:
            found = self._planes[revision] = ControlPlane(self, revision)
        return found

    @cached_property
    def cluster(self) -> Registry:
        """The services and endpoints that there are, whatever a control plane looks at."""
        control = self.control("")
        if control.mesh is self.mesh:
            return control.registry
        return Registry(self.mesh, control.config, lambda: self.faces_in)

    @cached_property
    def _labelled(self) -> frozenset[str]:
        """Revisions that objects name."""
        return frozenset(
            o.metadata.labels["istio.io/rev"]
            for field in _ISTIO
            for o in getattr(self.mesh, field)
            if "istio.io/rev" in o.metadata.labels
        )

    @cached_property
    def faces(self) -> dict[str, tuple[Face, ...]]:
        """Workload's ref -> the pods it is judged by. Pods that are done or going count for nothing."""
        return {w.ref: self.faces_of(w) for w in self.mesh.workloads}

    def faces_of(self, workload: Workload) -> tuple[Face, ...]:
        """The same of one workload."""
        found = []
        for pod in workload.faces:
            if pod.status.phase in ("Succeeded", "Failed"):
                continue
            if workload.pods and not is_manifest(pod):
                found.append(Face(pod, of_pod(pod)))
            else:
                plane, changed = to_be(pod, workload.ref, self.injector, self.mesh)
                found.append(Face(changed, plane))
        return tuple(found)

    @cached_property
    def face_of(self) -> dict[tuple[str, str], Face]:
        """(namespace, pod name) -> its face."""
        return {(f.pod.namespace, f.pod.name): f for faces in self.faces.values() for f in faces}

    @cached_property
    def faces_in(self) -> dict[str, tuple[Pod, ...]]:
        """Namespace -> the pods that Services there would select, running or to be."""
        found: dict[str, list[Pod]] = {}
        for faces in self.faces.values():
            for face in faces:
                found.setdefault(face.pod.namespace, []).append(face.pod)
        return {namespace: tuple(pods) for namespace, pods in found.items()}

    def face(self, pod: Pod) -> Face:
        """The face of a pod that an endpoint names."""
        return self.face_of.get((pod.namespace, pod.name)) or Face(pod, of_pod(pod))

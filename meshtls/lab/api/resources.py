"""Which kinds there are: one table, and what custom resource definitions add to it.

A line of the table: group, versions (preferred first), plural, Kind, scope (n namespaced, c cluster), subresources,
short names, categories, traits (see Resource). The kind's fields are named by `model`, the class of the official Python client that was
generated from the API.
"""
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec


class Resource(msgspec.Struct, frozen=True):
    """One kind as the API serves it. `name` is "plural" or "plural.group", the store's key."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool
    subresources: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular: str = ""
    list_kind: str = ""
    storage: str = ""
    schemas: dict[str, Any] | None = None
    columns: dict[str, Any] | None = None
    traits: str = "gr"
    """v: a review, answered and never stored; g: has a generation; d: DELETE answers with the object even when it is gone; r: a PUT
    without resourceVersion does not change it; p: a PUT creates it. What is not said here is that of custom kinds."""

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def virtual(self) -> bool:
        return "v" in self.traits

    @property
    def custom(self) -> bool:
        return self.schemas is not None

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    @property
    def stored_version(self) -> str:
        return self.api_version(self.storage or self.versions[0])

    @property
    def verbs(self) -> list[str]:
        if self.virtual:
            return ["create"]
        if self.custom:
            return ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        return ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


_TABLE = """
-                            v1 bindings Binding n - - - v
-                            v1 configmaps ConfigMap n - cm -
-                            v1 endpoints Endpoints n - ep - p
-                            v1 events Event n - ev - p
-                            v1 limitranges LimitRange n - limits - p
-                            v1 namespaces Namespace c finalize,status ns - d
-                            v1 nodes Node c status no -
-                            v1 persistentvolumeclaims PersistentVolumeClaim n status pvc - d
-                            v1 persistentvolumes PersistentVolume c status pv - d
-                            v1 pods Pod n status,log,binding,eviction,ephemeralcontainers po all gd
-                            v1 podtemplates PodTemplate n - - - gd
-                            v1 replicationcontrollers ReplicationController n status,scale rc all g
-                            v1 resourcequotas ResourceQuota n status quota - d
-                            v1 secrets Secret n - - -
-                            v1 serviceaccounts ServiceAccount n token sa - d
-                            v1 services Service n status svc all dp
admissionregistration.k8s.io v1 mutatingwebhookconfigurations MutatingWebhookConfiguration c - - api-extensions gr
admissionregistration.k8s.io v1 validatingadmissionpolicies ValidatingAdmissionPolicy c status - api-extensions gr
admissionregistration.k8s.io v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding c - - api-extensions gr
admissionregistration.k8s.io v1 validatingwebhookconfigurations ValidatingWebhookConfiguration c - - api-extensions gr
apiextensions.k8s.io         v1 customresourcedefinitions CustomResourceDefinition c status crd,crds api-extensions gr
apps                         v1 controllerrevisions ControllerRevision n - - -
apps                         v1 daemonsets DaemonSet n status ds all g
apps                         v1 deployments Deployment n scale,status deploy all g
apps                         v1 replicasets ReplicaSet n scale,status rs all g
apps                         v1 statefulsets StatefulSet n scale,status sts all g
authentication.k8s.io        v1 selfsubjectreviews SelfSubjectReview c - - - v
authentication.k8s.io        v1 tokenreviews TokenReview c - - - v
authorization.k8s.io         v1 localsubjectaccessreviews LocalSubjectAccessReview n - - - v
authorization.k8s.io         v1 selfsubjectaccessreviews SelfSubjectAccessReview c - - - v
authorization.k8s.io         v1 selfsubjectrulesreviews SelfSubjectRulesReview c - - - v
authorization.k8s.io         v1 subjectaccessreviews SubjectAccessReview c - - - v
autoscaling                  v2 horizontalpodautoscalers HorizontalPodAutoscaler n status hpa all
batch                        v1 cronjobs CronJob n status cj all g
batch                        v1 jobs Job n status - all g
coordination.k8s.io          v1 leases Lease n - - - rp
discovery.k8s.io             v1 endpointslices EndpointSlice n - - - g
networking.k8s.io            v1 ingressclasses IngressClass c - - - g
networking.k8s.io            v1 ingresses Ingress n status ing - g
networking.k8s.io            v1 networkpolicies NetworkPolicy n - netpol - g
node.k8s.io                  v1 runtimeclasses RuntimeClass c - - - rp
policy                       v1 poddisruptionbudgets PodDisruptionBudget n status pdb - gr
rbac.authorization.k8s.io    v1 clusterrolebindings ClusterRoleBinding c - - - p
rbac.authorization.k8s.io    v1 clusterroles ClusterRole c - - - p
rbac.authorization.k8s.io    v1 rolebindings RoleBinding n - - - p
rbac.authorization.k8s.io    v1 roles Role n - - - p
scheduling.k8s.io            v1 priorityclasses PriorityClass c - pc - g
storage.k8s.io               v1 storageclasses StorageClass c - sc - d
"""

MODELS = {("", "Event"): "CoreV1Event"}
"""Where the client's class is not named version + kind."""


def _words(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))


def _builtin() -> Iterator[Resource]:
    for line in _TABLE.strip().splitlines():
        group, versions, plural, kind, scope, subresources, short, categories, *traits = line.split()
        yield Resource("" if group == "-" else group, _words(versions), plural, kind, scope == "n",
                       _words(subresources), _words(short),
                       _words(categories), singular=kind.lower(), list_kind=kind + "List", traits="".join(traits))


BUILTIN: tuple[Resource, ...] = tuple(_builtin())


def from_definition(definition: dict[str, Any]) -> Resource:
    """The resource that a stored CustomResourceDefinition describes."""
    spec = definition["spec"]
    names, served = spec["names"], [version for version in spec["versions"] if version.get("served", True)]
    ordered = sorted(served, key=lambda version: _priority(version["name"]))
    parts = {part for version in served for part in version.get("subresources") or ()}
    return Resource(
        spec["group"], tuple(version["name"] for version in ordered), names["plural"], names["kind"],
        spec["scope"] == "Namespaced",
        tuple(sorted(parts)), tuple(names.get("shortNames") or ()), tuple(names.get("categories") or ()),
        singular=names.get("singular") or names["kind"].lower(), list_kind=names.get("listKind")
        or names["kind"] + "List",
        storage=next((version["name"] for version in spec["versions"] if version.get("storage")), ""),
        schemas={version["name"]: (version.get("schema") or {}).get("openAPIV3Schema") or {} for version in served},
        columns={version["name"]: version for version in served})


def _priority(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: GA, beta, alpha; newest first."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return 3, 0, 0, version
    return ("", "beta", "alpha").index(found[2] or ""), -int(found[1]), -int(found[3] or 0), ""


class Registry:
    """All resources served now; custom ones come and go."""

    def __init__(self, resources: Iterable[Resource] = BUILTIN) -> None:
        self._by_name = {resource.name: resource for resource in resources}
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        self._index()

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_name.values())

    def add(self, resource: Resource) -> None:
        self._by_name[resource.name] = resource
        self._index()

    def remove(self, name: str) -> None:
        self._by_name.pop(name, None)
        self._index()

    def named(self, name: str) -> Resource | None:
        return self._by_name.get(name)

    def at(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def of_kind(self, group: str, kind: str) -> Resource | None:
        return next((resource for resource in self if resource.group == group and resource.kind == kind), None)

    def groups(self) -> dict[str, list[str]]:
        """Named groups and their versions, preferred first."""
        found: dict[str, list[str]] = {}
        for resource in self:
            if resource.group:
                known = found.setdefault(resource.group, [])
                known.extend(version for version in resource.versions if version not in known)
        return {group: sorted(versions, key=_priority) for group, versions in found.items()}

    def is_custom(self, group: str) -> bool:
        return any(resource.custom for resource in self if resource.group == group)

    def _index(self) -> None:
        self.generation += 1
        self._by_path = {(resource.group, version, resource.plural): resource
                         for resource in self for version in resource.versions}

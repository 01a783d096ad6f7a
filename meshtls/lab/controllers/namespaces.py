"""What a namespace always holds, and how it ends.

Laws:
  1. An active namespace has the ServiceAccount `default`, the ConfigMap `kube-root-ca.crt` and, unless it is one of
     those that Istio leaves alone, `istio-ca-root-cert`
     (pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go); whoever changes them sees them restored.
  2. A namespace that is deleted goes when everything in it has gone: first the pods, so that policies hold as long as
     they do, then the rest (pkg/controller/namespace/deletion). What holds it up is said in its conditions.
"""

from collections import Counter
from collections.abc import Iterable

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.controller import Controller, Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, name_of

CONDITIONS = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    ("NamespaceDeletionContentFailure", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)
"""Of a namespace that goes, with what is said of each while it is False."""
WITHOUT_MESH_ROOT = frozenset({"kube-public", "kube-node-lease", "local-path-storage"})


class Namespaces(Controller):
    name, resource = "namespace-controller", "namespaces"

    def __init__(self, hands: Hands, mesh_root_pem: str, api_root_pem: str) -> None:
        super().__init__(hands)
        self._mesh_root_pem, self._api_root_pem = mesh_root_pem, api_root_pem

    def keys(self, event: Event) -> list[tuple[str, str]]:
        metadata = event.object["metadata"]
        name = metadata["name"] if event.resource == "namespaces" else metadata.get("namespace")
        home = self.store.get("namespaces", "", name) if name else None
        furniture = event.resource in ("configmaps", "serviceaccounts") and event.type != "ADDED"
        return [("", name)] if home and (event.resource == "namespaces" or furniture or is_deleting(home)) else []

    async def reconcile(self, namespace: str, name: str) -> float | None:
        home = self.store.get(self.resource, "", name)
        if home is None:
            return None
        if is_deleting(home):
            self._empty(home)
            return None
        self._keep("serviceaccounts", "ServiceAccount", name, "default", {})
        self._keep("configmaps", "ConfigMap", name, "kube-root-ca.crt", {"data": {"ca.crt": self._api_root_pem}})
        if name not in WITHOUT_MESH_ROOT:
            root = {"data": {"root-cert.pem": self._mesh_root_pem}}
            self._keep("configmaps", "ConfigMap", name, "istio-ca-root-cert", root, {"istio.io/config": "true"})
        return None

    def _keep(self, resource: str, kind: str, namespace: str, name: str, body: Obj, labels: Obj | None = None) -> None:
        def restore(obj: Obj) -> None:
            obj.update(body)
            if labels:
                obj["metadata"].setdefault("labels", {}).update(labels)

        if self.store.mutate(resource, namespace, name, restore) is None:
            made: Obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
            restore(made)
            self.store.create(resource, made)

    def _empty(self, home: Obj) -> None:
        name, told = name_of(home), dict[str, tuple[str, str]]()
        left = self._deleted(["pods"], name)
        if not left and (left := self._deleted(self.store.resources(), name)):
            remaining = [f"{resource}{'.' * ('.' not in resource)} has {len(found)} resource instances" for resource, found in sorted(left.items())]
            told["NamespaceContentRemaining"] = "SomeResourcesRemain", f"Some resources are remaining: {', '.join(remaining)}"
            holders = Counter(one for found in left.values() for obj in found for one in obj["metadata"].get("finalizers") or ())
            held = ", ".join(f"{one} in {count} resource instances" for one, count in sorted(holders.items()))
            if held:
                message = f"Some content in the namespace has finalizers remaining: {held}"
                told["NamespaceFinalizersRemaining"] = "SomeFinalizersRemain", message
        with self.changing(home) as draft:
            if not left:
                draft["spec"] = {**(home.get("spec") or {}), "finalizers": []}
            draft["status"]["phase"] = "Terminating"
            for kind, *well in CONDITIONS:
                reason, message = told.get(kind, well)
                conditions.put(draft["status"], kind, str(kind in told), reason, message, self.store.now())

    def _deleted(self, resources: Iterable[str], namespace: str) -> dict[str, list[Obj]]:
        """Delete all that is there of these resources; what is left of each."""
        for resource in (resources := list(resources)):
            for obj in self.store.list(resource, namespace):
                if not is_deleting(obj):
                    self.store.delete(resource, namespace, name_of(obj))
        return {resource: found for resource in resources if (found := self.store.list(resource, namespace))}

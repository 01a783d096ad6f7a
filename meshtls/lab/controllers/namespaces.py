"""What a namespace always holds, and how it ends.

Laws:
  1. An active namespace has the ServiceAccount `default`, the ConfigMap `kube-root-ca.crt` and, unless it is one of
     those that Istio leaves alone, `istio-ca-root-cert`
     (pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go); whoever changes them sees them restored.
  2. A namespace that is deleted goes when everything in it has gone. What holds it up is said in its conditions.
"""

from collections import Counter

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.controller import Controller, Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, name_of

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
        store, name = self.store, name_of(home)
        for resource in store.resources():
            for obj in store.list(resource, name):
                if not is_deleting(obj):
                    store.delete(resource, name, name_of(obj))
        left = {resource: found for resource in store.resources() if (found := store.list(resource, name))}
        with self.changing(home) as draft:
            if left:
                self._say_what_is_left(draft["status"], left)
            else:
                draft["spec"] = {**(home.get("spec") or {}), "finalizers": []}

    def _say_what_is_left(self, status: Obj, left: dict[str, list[Obj]]) -> None:
        status["phase"] = "Terminating"
        holders = Counter(
            one for found in left.values() for obj in found for one in obj["metadata"].get("finalizers") or ()
        )
        remaining = [f"{resource} has {len(found)} resource instances" for resource, found in sorted(left.items())]
        held = [f"{one} in {count} resource instances" for one, count in sorted(holders.items())]
        content = "Some content in the namespace has finalizers remaining"
        for kind, reason, opening, what in (
            ("NamespaceContentRemaining", "SomeResourcesRemain", "Some resources are remaining", remaining),
            ("NamespaceFinalizersRemaining", "SomeFinalizersRemain", content, held),
        ):
            if what:
                conditions.put(status, kind, "True", reason, f"{opening}: {', '.join(what)}", self.store.now())

"""What a namespace always holds, and how it ends.

Laws:
  1. An active namespace has the ServiceAccount `default`, the ConfigMap `kube-root-ca.crt` and, unless it is one of
     those that Istio leaves alone, `istio-ca-root-cert`
     (pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go); whoever changes them sees them restored.
  2. A namespace that is deleted goes when everything in it has gone. What holds it up is said in its conditions.
"""

from collections import Counter

from meshtls.lab.api.store import Event
from meshtls.lab.controllers.clock import text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, set_condition
from meshtls.lab.controllers.queue import Key

WITHOUT_MESH_ROOT = frozenset({"kube-public", "kube-node-lease", "local-path-storage"})


class Namespaces:
    name = "namespace-controller"
    watches: frozenset[str] = frozenset()

    def __init__(self, hands: Hands, mesh_root_pem: str, api_root_pem: str) -> None:
        self._hands = hands
        self._mesh_root_pem = mesh_root_pem
        self._api_root_pem = api_root_pem

    def keys(self, event: Event) -> list[Key]:
        metadata = event.object["metadata"]
        if event.resource == "namespaces":
            return [("", metadata["name"])]
        namespace = metadata.get("namespace")
        if not namespace:
            return []
        if event.resource in ("configmaps", "serviceaccounts") and event.type != "ADDED":
            return [("", namespace)]
        home = self._hands.store.get("namespaces", "", namespace)
        return [("", namespace)] if home is not None and is_deleting(home) else []

    async def reconcile(self, namespace: str, name: str) -> float | None:
        home = self._hands.store.get("namespaces", "", name)
        if home is None:
            return None
        if is_deleting(home):
            self._empty(home)
        else:
            self._furnish(name)
        return None

    def _furnish(self, name: str) -> None:
        if self._hands.store.get("serviceaccounts", name, "default") is None:
            self._hands.store.create(
                "serviceaccounts",
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}},
            )
        self._keep_config_map(name, "kube-root-ca.crt", {"ca.crt": self._api_root_pem}, {})
        if name not in WITHOUT_MESH_ROOT:
            self._keep_config_map(
                name, "istio-ca-root-cert", {"root-cert.pem": self._mesh_root_pem}, {"istio.io/config": "true"}
            )

    def _keep_config_map(self, namespace: str, name: str, data: dict[str, str], labels: dict[str, str]) -> None:
        def restore(obj: Obj) -> None:
            obj["data"] = data
            if labels:
                obj["metadata"].setdefault("labels", {}).update(labels)

        if self._hands.store.mutate("configmaps", namespace, name, restore) is None:
            made: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
            restore(made)
            self._hands.store.create("configmaps", made)

    def _empty(self, home: Obj) -> None:
        store, name = self._hands.store, home["metadata"]["name"]
        for resource in store.resources():
            for obj in store.list(resource, name):
                if not is_deleting(obj):
                    store.delete(resource, name, obj["metadata"]["name"])
        left = {resource: found for resource in store.resources() if (found := store.list(resource, name))}
        if left:
            store.mutate("namespaces", "", name, lambda obj: self._say_what_is_left(obj, left))
        elif store.mutate("namespaces", "", name, _release) is not None:
            store.delete("namespaces", "", name)

    def _say_what_is_left(self, home: Obj, left: dict[str, list[Obj]]) -> None:
        now, status = text(self._hands.clock.now()), home.setdefault("status", {})
        status["phase"] = "Terminating"
        remaining = ", ".join(
            f"{resource} has {len(found)} resource instances" for resource, found in sorted(left.items())
        )
        set_condition(
            status,
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            f"Some resources are remaining: {remaining}",
            now,
        )
        holders = Counter(
            one for found in left.values() for obj in found for one in obj["metadata"].get("finalizers") or ()
        )
        if holders:
            said = ", ".join(f"{one} in {count} resource instances" for one, count in sorted(holders.items()))
            set_condition(
                status,
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: {said}",
                now,
            )


def _release(home: Obj) -> None:
    home.setdefault("spec", {})["finalizers"] = []

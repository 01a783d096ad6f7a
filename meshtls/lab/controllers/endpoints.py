"""EndpointSlices of every Service with a selector, brought to what `slices` says. A Service without a selector is
left to its owner."""

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import slices
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of, labels_of
from meshtls.lab.controllers.queue import Key

RESOURCE = "endpointslices.discovery.k8s.io"


class EndpointSlices:
    name = "endpointslice-controller"
    watches = frozenset({"services", "pods", RESOURCE})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == "services":
            return [key_of(event.object)]
        namespace = event.object["metadata"]["namespace"]
        if event.resource == RESOURCE:
            # only somebody else's doing needs putting right; a write of ours finds nothing to do
            name = labels_of(event.object).get(slices.SERVICE_LABEL)
            return [(namespace, name)] if name else []
        label_sets = [labels_of(obj) for obj in (event.object, event.old) if obj is not None]
        return [
            key_of(service)
            for service in self._hands.store.list("services", namespace)
            if (wanted := service["spec"].get("selector"))
            and any(wanted.items() <= labels.items() for labels in label_sets)
        ]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        store = self._hands.store
        service = store.get("services", namespace, name)
        if service is None or is_deleting(service) or service["spec"].get("type") == "ExternalName":
            return None
        selector = service["spec"].get("selector")
        if not selector:
            return None
        stale = {
            obj["metadata"]["name"]
            for obj in self._hands.owners.owned(service, RESOURCE)
            if labels_of(obj).get(slices.MANAGED_BY) == slices.CONTROLLER
        }
        for wanted in slices.build(service, store.list("pods", namespace, selector)):
            stale.discard(wanted["metadata"]["name"])
            if (
                store.mutate(RESOURCE, namespace, wanted["metadata"]["name"], lambda obj, new=wanted: _copy(new, obj))
                is None
            ):
                store.create(RESOURCE, wanted)
        for old in stale:
            store.delete(RESOURCE, namespace, old)
        return None


def _copy(wanted: Obj, obj: Obj) -> None:
    """Make `obj` say what `wanted` says, keeping what the store added."""
    for field in ("endpoints", "ports", "addressType"):
        obj[field] = wanted[field]
    obj["metadata"]["labels"] = wanted["metadata"]["labels"]

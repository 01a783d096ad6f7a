"""EndpointSlices of every Service with a selector, brought to what `slices` says. A Service without a selector is
left to its owner."""

from functools import partial

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import slices
from meshtls.lab.controllers.controller import Controller
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of, labels_of, name_of

RESOURCE = "endpointslices.discovery.k8s.io"


class EndpointSlices(Controller):
    name = "endpointslice-controller"
    watches = frozenset({"services", "pods", RESOURCE})

    def keys(self, event: Event) -> list[tuple[str, str]]:
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
            for service in self.store.list("services", namespace)
            if (wanted := service["spec"].get("selector"))
            and any(wanted.items() <= labels.items() for labels in label_sets)
        ]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        service = self.store.get("services", namespace, name)
        selector = service["spec"].get("selector") if service else None
        if not service or not selector or is_deleting(service) or service["spec"].get("type") == "ExternalName":
            return None
        stale = {
            name_of(obj)
            for obj in self.owners.owned(service, RESOURCE)
            if labels_of(obj).get(slices.MANAGED_BY) == slices.CONTROLLER
        }
        for wanted in slices.build(service, self.store.list("pods", namespace, selector)):
            stale.discard(name_of(wanted))
            if self.store.mutate(RESOURCE, *key_of(wanted), partial(_copy, wanted)) is None:
                self.store.create(RESOURCE, wanted)
        for old in stale:
            self.store.delete(RESOURCE, namespace, old)
        return None


def _copy(wanted: Obj, obj: Obj) -> None:
    """Make `obj` say what `wanted` says, keeping what the store added."""
    obj.update({field: wanted[field] for field in ("endpoints", "ports", "addressType")})
    obj["metadata"]["labels"] = wanted["metadata"]["labels"]

"""Cluster addresses and node ports for Services that came into the store past the API, which gives them to all others
as they are created."""

from meshtls.lab.api.resources import Registry
from meshtls.lab.api.store import Event
from meshtls.lab.api.strategy import allot
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, key_of
from meshtls.lab.controllers.queue import Key


class Addresses:
    name = "service-addresses"
    watches = frozenset({"services"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._kind = Registry().named("services")

    def keys(self, event: Event) -> list[Key]:
        return [] if event.type == "DELETED" or event.object["spec"].get("clusterIPs") else [key_of(event.object)]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        def complete(service: Obj) -> None:
            for complaint in allot(self._kind, service, self._hands.store):
                self._hands.recorder.warning(service, self.name, "ClusterIPNotAllocated", str(complaint))

        self._hands.store.mutate("services", namespace, name, complete)
        return None

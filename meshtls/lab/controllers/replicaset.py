"""ReplicaSet: as many active pods as `replicas` says, made from the template, and a status that counts them."""

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import pods
from meshtls.lab.controllers.clock import text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import (
    Obj,
    controller_of,
    drop_condition,
    is_deleting,
    key_of,
    labels_of,
    matches,
    says_new,
    set_condition,
)
from meshtls.lab.controllers.queue import Key, Retry

BURST = 500
"""Most pods created or deleted in one pass."""


def owner_keys(event: Event, kind: str) -> list[Key]:
    """The objects of `kind` that control the event's object now, or did before."""
    found = []
    for obj in (event.object, event.old):
        ref = controller_of(obj) if obj else None
        if ref is not None and ref["kind"] == kind:
            found.append((event.object["metadata"]["namespace"], ref["name"]))
    return found


class ReplicaSets:
    name = "replicaset-controller"
    watches = frozenset({"replicasets.apps", "pods"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == "replicasets.apps":
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        if found := owner_keys(event, "ReplicaSet"):
            return found
        if event.type == "DELETED" or controller_of(event.object):
            return []
        namespace = event.object["metadata"]["namespace"]
        return [
            key_of(one)
            for one in self._hands.store.list("replicasets.apps", namespace)
            if matches(one["spec"].get("selector"), labels_of(event.object))
        ]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        hands = self._hands
        replica_set = hands.store.get("replicasets.apps", namespace, name)
        if replica_set is None:
            return None
        refused = ""
        if not is_deleting(replica_set):
            active = self._active(replica_set)
            missing = replica_set["spec"].get("replicas", 1) - len(active)
            try:
                await self._add(replica_set, min(missing, BURST))
            except Retry as refusal:
                refused = str(refusal)
            for pod in pods.expendable_first(active)[: min(max(-missing, 0), BURST)]:
                pods.delete(hands, replica_set, self.name, pod)
        again = self._write_status(replica_set, refused)
        if refused:
            raise Retry(refused)
        return again

    def _active(self, replica_set: Obj) -> list[Obj]:
        return [
            pod
            for pod in self._hands.owners.claimed(replica_set, "pods", replica_set["spec"].get("selector"))
            if pods.is_active(pod)
        ]

    async def _add(self, replica_set: Obj, count: int) -> None:
        base = replica_set["metadata"]["name"]
        wanted = []
        for _ in range(count):
            pod = pods.make(replica_set, replica_set["spec"]["template"], f"{base}-{self._hands.suffix()}")
            pod["metadata"]["generateName"] = f"{base}-"
            wanted.append(pod)
        await pods.create(self._hands, replica_set, self.name, wanted)

    def _write_status(self, seen: Obj, refused: str) -> float | None:
        hands, now = self._hands, self._hands.clock.now()
        namespace, name = key_of(seen)
        replica_set = hands.store.get("replicasets.apps", namespace, name)
        if replica_set is None:
            return None
        spec = replica_set["spec"]
        active = [pod for pod in hands.owners.owned(replica_set, "pods") if pods.is_active(pod)]
        waits = [pods.available_in(pod, spec.get("minReadySeconds", 0), now) for pod in active]
        template = (spec["template"].get("metadata") or {}).get("labels") or {}
        counts = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(template.items() <= labels_of(pod).items() for pod in active),
            "readyReplicas": sum(pods.is_ready(pod) for pod in active),
            "availableReplicas": waits.count(0),
        }

        def write(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            for field, count in counts.items():
                if count or field == "replicas":
                    status[field] = count
                else:
                    status.pop(field, None)
            status["observedGeneration"] = seen["metadata"]["generation"]
            if refused:
                set_condition(status, "ReplicaFailure", "True", "FailedCreate", refused, text(now))
            else:
                drop_condition(status, "ReplicaFailure")

        hands.store.mutate("replicasets.apps", namespace, name, write)
        return min((wait for wait in waits if wait), default=None)

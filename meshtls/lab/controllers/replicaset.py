"""ReplicaSet: as many active pods as `replicas` says, made from the template, and a status that counts them."""

from meshtls.lab.api.select import selected
from meshtls.lab.api.store import Event
from meshtls.lab.controllers import conditions, pods
from meshtls.lab.controllers.controller import Workload
from meshtls.lab.controllers.objects import Obj, controller_of, is_deleting, key_of, labels_of, name_of, set_counts
from meshtls.lab.controllers.queue import Retry


class ReplicaSets(Workload):
    name, resource, kind = "replicaset-controller", "replicasets.apps", "ReplicaSet"
    watches = frozenset({resource, "pods"})

    def keys(self, event: Event) -> list[tuple[str, str]]:
        found = super().keys(event)
        if found or event.resource == self.resource or event.type == "DELETED" or controller_of(event.object):
            return found
        return [
            key_of(one)
            for one in self.store.list(self.resource, event.object["metadata"]["namespace"])
            if selected(one["spec"].get("selector"), labels_of(event.object))
        ]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        replica_set = self.store.get(self.resource, namespace, name)
        if replica_set is None:
            return None
        # one that is being deleted still counts its pods
        return self._write_status(replica_set, "") if is_deleting(replica_set) else await self.sync(replica_set)

    async def sync(self, replica_set: Obj) -> float | None:
        active = [pod for pod in self.owners.claimed(replica_set, "pods") if pods.is_active(pod)]
        missing = replica_set["spec"].get("replicas", 1) - len(active)
        for pod in pods.expendable_first(active)[: max(-missing, 0)]:
            self.delete_pod(replica_set, pod)
        template, name = replica_set["spec"]["template"], f"{name_of(replica_set)}-"
        fresh = [pods.make(replica_set, template, generateName=name) for _ in range(missing)]
        refused = ""
        try:
            await self.create_pods(replica_set, fresh)
        except Retry as refusal:
            refused = str(refusal)
            raise
        finally:
            again = self._write_status(replica_set, refused)
        return again

    def _write_status(self, seen: Obj, refused: str) -> float | None:
        owned = self.owners.owned(seen, "pods")
        active = [pod for pod in owned if pods.is_active(pod)]
        counts, again = pods.count(active, seen["spec"].get("minReadySeconds", 0), self.clock.now())
        labels = labels_of(seen["spec"]["template"])
        counts["fullyLabeledReplicas"] = sum(labels.items() <= labels_of(pod).items() for pod in active)
        counts["terminatingReplicas"] = sum(is_deleting(pod) and not pods.is_done(pod) for pod in owned)
        with self.changing(seen) as replica_set:
            status = replica_set["status"]
            set_counts(status, counts, always=("replicas", "terminatingReplicas"))
            status["observedGeneration"] = seen["metadata"]["generation"]
            if refused:
                conditions.put(status, "ReplicaFailure", "True", "FailedCreate", refused, self.store.now())
            else:
                conditions.drop(status, "ReplicaFailure")
        return again

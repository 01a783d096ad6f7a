"""StatefulSet: pods with ordinals, names and host names that stay.

Laws (pkg/controller/statefulset/stateful_set_control.go):
  1. OrderedReady: a pod is created when all before it are ready, and removed when all after it are gone. Parallel:
     all at once.
  2. An update replaces one pod at a time, from the highest ordinal down to the partition, and waits for it to be
     ready; OnDelete waits for somebody to delete. A pod below the partition is made again from the current revision,
     not the new one.
  3. A pod keeps its name, so its successor is created only when it is really gone.
"""

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import pods, revisions
from meshtls.lab.controllers.clock import text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, drop_condition, is_deleting, key_of, labels_of, says_new, set_condition
from meshtls.lab.controllers.queue import Key, Retry
from meshtls.lab.controllers.replicaset import owner_keys

RESOURCE = "statefulsets.apps"


class StatefulSets:
    name = "statefulset-controller"
    watches = frozenset({RESOURCE, "pods"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == RESOURCE:
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        return owner_keys(event, "StatefulSet")

    async def reconcile(self, namespace: str, name: str) -> float | None:
        stateful = self._hands.store.get(RESOURCE, namespace, name)
        if stateful is None or is_deleting(stateful):
            return None
        update = revisions.current(self._hands, stateful)
        current = (stateful.get("status") or {}).get("currentRevision") or update
        refused = ""
        try:
            await self._fill(stateful, current, update)
        except Retry as refusal:
            refused = str(refusal)
        again = self._write_status(stateful, current, update, refused)
        if refused:
            raise Retry(refused)
        return again

    def _pods(self, stateful: Obj) -> dict[int, Obj]:
        """Its pods by ordinal."""
        found = {}
        for pod in self._hands.owners.claimed(stateful, "pods", stateful["spec"].get("selector")):
            base, _, number = pod["metadata"]["name"].rpartition("-")
            if base == stateful["metadata"]["name"] and number.isdigit():
                found[int(number)] = pod
        return found

    async def _fill(self, stateful: Obj, current: str, update: str) -> None:
        """One step towards the declared pods, then the update of one of them."""
        hands, spec = self._hands, stateful["spec"]
        start = (spec.get("ordinals") or {}).get("start", 0)
        wanted = range(start, start + spec.get("replicas", 1))
        ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        have = self._pods(stateful)
        create = []
        for ordinal in wanted:
            pod = have.get(ordinal)
            if pod is None:
                create.append(
                    self._pod(
                        stateful, ordinal, current if ordinal < self._partition(spec, current, update) else update
                    )
                )
            elif pods.is_done(pod) and not is_deleting(pod):
                pods.delete(hands, stateful, self.name, pod)
            if ordered and not (pod is not None and self._is_settled(stateful, pod)):
                break
        else:
            ordered = False
        await pods.create(hands, stateful, self.name, create[:1] if ordered else create)
        if ordered:
            return
        if self._shrink(stateful, [have[number] for number in sorted(have, reverse=True) if number not in wanted]):
            return
        self._update(
            stateful,
            [
                have[number]
                for number in reversed(wanted)
                if number in have and number >= self._partition(spec, current, update)
            ],
            update,
        )

    def _partition(self, spec: Obj, current: str, update: str) -> int:
        """The lowest ordinal that may have the new revision."""
        strategy = spec.get("updateStrategy") or {}
        if current == update or strategy.get("type", "RollingUpdate") == "OnDelete":
            return 0
        return int((strategy.get("rollingUpdate") or {}).get("partition", 0))

    def _is_settled(self, stateful: Obj, pod: Obj) -> bool:
        wait = pods.available_in(pod, stateful["spec"].get("minReadySeconds", 0), self._hands.clock.now())
        return wait == 0 and not is_deleting(pod)

    def _shrink(self, stateful: Obj, surplus: list[Obj]) -> bool:
        """Remove pods beyond the size, highest first; True while there are any."""
        ordered = stateful["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        for pod in surplus[:1] if ordered else surplus:
            if not is_deleting(pod):
                pods.delete(self._hands, stateful, self.name, pod)
        return bool(surplus)

    def _update(self, stateful: Obj, highest_first: list[Obj], update: str) -> None:
        if (stateful["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
            return
        for pod in highest_first:
            if _revision(pod) != update:
                if not is_deleting(pod):
                    pods.delete(self._hands, stateful, self.name, pod)
                return
            if not self._is_settled(stateful, pod):
                return

    def _pod(self, stateful: Obj, ordinal: int, revision: str) -> Obj:
        name = f"{stateful['metadata']['name']}-{ordinal}"
        pod = pods.make(stateful, revisions.template(self._hands, stateful, revision), name)
        pod["metadata"]["labels"] |= {
            revisions.HASH: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
        }
        pod["spec"] |= {"hostname": name, "subdomain": stateful["spec"].get("serviceName", "")}
        for claim in stateful["spec"].get("volumeClaimTemplates") or ():
            volume = claim["metadata"]["name"]
            self._claim(stateful, claim, f"{volume}-{name}")
            others = [one for one in pod["spec"].get("volumes") or () if one["name"] != volume]
            pod["spec"]["volumes"] = [
                *others,
                {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}"}},
            ]
        return pod

    def _claim(self, stateful: Obj, template: Obj, name: str) -> None:
        namespace = stateful["metadata"]["namespace"]
        if self._hands.store.get("persistentvolumeclaims", namespace, name) is None:
            self._hands.store.create(
                "persistentvolumeclaims",
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": name, "namespace": namespace, "labels": dict(labels_of(stateful))},
                    "spec": dict(template.get("spec") or {}),
                    "status": {"phase": "Bound"},
                },
            )

    def _write_status(self, seen: Obj, current: str, update: str, refused: str) -> float | None:
        hands, now = self._hands, self._hands.clock.now()
        found = [pod for pod in self._pods(seen).values() if not is_deleting(pod)]
        waits = [pods.available_in(pod, seen["spec"].get("minReadySeconds", 0), now) for pod in found]
        updated = [pod for pod in found if _revision(pod) == update]
        replicas = seen["spec"].get("replicas", 1)
        finished = (
            len(updated) == len(found) == replicas and waits.count(0) == replicas and len(self._pods(seen)) == replicas
        )
        counts = {
            "replicas": len(found),
            "readyReplicas": sum(map(pods.is_ready, found)),
            "availableReplicas": waits.count(0),
            "updatedReplicas": len(updated),
            "currentReplicas": sum(_revision(pod) == current for pod in found),
        }
        if finished and current != update:
            current, counts["currentReplicas"] = update, len(updated)

        def write(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            status.update(
                counts,
                observedGeneration=seen["metadata"]["generation"],
                currentRevision=current,
                updateRevision=update,
                collisionCount=0,
            )
            if refused:
                set_condition(status, "ReplicaFailure", "True", "FailedCreate", refused, text(now))
            else:
                drop_condition(status, "ReplicaFailure")

        hands.store.mutate(RESOURCE, *key_of(seen), write)
        revisions.forget_old(hands, seen, {current, update, *(_revision(pod) for pod in found)})
        return min((wait for wait in waits if wait), default=None)


def _revision(pod: Obj) -> str:
    return labels_of(pod).get(revisions.HASH, "")

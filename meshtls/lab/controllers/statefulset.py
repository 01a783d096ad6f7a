"""StatefulSet: pods with ordinals, names and host names that stay.

Laws (pkg/controller/statefulset/stateful_set_control.go):
  1. OrderedReady: a pod is created when all before it are ready, and removed when all after it are gone. Parallel:
     all at once.
  2. An update replaces one pod at a time, from the highest ordinal down to the partition, and waits for it to be
     ready; OnDelete waits for somebody to delete. A pod below the partition is made again from the current revision,
     not the new one.
  3. A pod keeps its name, so its successor is created only when it is really gone.
"""

from meshtls.lab.controllers import pods
from meshtls.lab.controllers.objects import Obj, is_deleting, labels_of, name_of, set_counts, status_of
from meshtls.lab.controllers.revisions import HASH, Revised, revision_of

CLAIMS = "persistentvolumeclaims"


class StatefulSets(Revised):
    name, resource, kind = "statefulset-controller", "statefulsets.apps", "StatefulSet"
    watches = frozenset({resource, "pods"})
    mark = "controller.kubernetes.io/hash"
    created = "Create Pod {pod} in StatefulSet {owner} successful"
    deleted = "Delete Pod {pod} in StatefulSet {owner} successful"

    async def sync(self, stateful: Obj) -> float | None:
        update = self.revision(stateful)
        current = status_of(stateful).get("currentRevision") or update
        try:
            await self._fill(stateful, current, update)
        finally:
            again = self._write_status(stateful, current, update)
        return again

    def _pods(self, stateful: Obj) -> dict[int, Obj]:
        """Its pods by ordinal."""
        named = ((pod, name_of(pod).rpartition("-")) for pod in self.owners.claimed(stateful, "pods"))
        return {
            int(number): pod for pod, (base, _, number) in named if base == name_of(stateful) and number.isdigit()
        }

    async def _fill(self, stateful: Obj, current: str, update: str) -> None:
        """One step towards the declared pods, then the update of one of them."""
        spec, have = stateful["spec"], self._pods(stateful)
        start = (spec.get("ordinals") or {}).get("start", 0)
        wanted = range(start, start + spec.get("replicas", 1))
        ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        rolling, settings = _rolling(stateful)
        # the lowest ordinal that may have the new revision
        partition = settings.get("partition", 0) if rolling and current != update else 0

        held_up = (one for one in wanted if ordered and not (one in have and self._is_settled(stateful, have[one])))
        stop = next(held_up, None)
        within = wanted if stop is None else range(start, stop + 1)
        for ordinal in within:
            if ordinal in have and pods.is_done(have[ordinal]):
                self.delete_pod(stateful, have[ordinal])
        missing = [(one, current if one < partition else update) for one in within if one not in have]
        await self.create_pods(stateful, [self._pod(stateful, *one) for one in missing])
        if stop is not None:
            return
        if surplus := [have[one] for one in sorted(have, reverse=True) if one not in wanted]:
            for pod in surplus[:1] if ordered else surplus:
                self.delete_pod(stateful, pod)
            return
        for pod in (have[one] for one in reversed(wanted) if rolling and one in have and one >= partition):
            if revision_of(pod) != update:
                self.delete_pod(stateful, pod)
                return
            if not self._is_settled(stateful, pod):
                return

    def _is_settled(self, stateful: Obj, pod: Obj) -> bool:
        wait = pods.available_in(pod, stateful["spec"].get("minReadySeconds", 0), self.clock.now())
        return wait == 0 and not is_deleting(pod)

    def _pod(self, stateful: Obj, ordinal: int, revision: str) -> Obj:
        name = f"{name_of(stateful)}-{ordinal}"
        template = self.template(stateful, revision)
        # by generateName the injector knows a controller's pod
        pod = pods.make(stateful, template, name=name, generateName=f"{name_of(stateful)}-")
        pod["metadata"]["labels"] |= {
            HASH: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
        }
        pod["spec"] |= {"hostname": name, "subdomain": stateful["spec"].get("serviceName", "")}
        for claim in stateful["spec"].get("volumeClaimTemplates") or ():
            volume = name_of(claim)
            self._claim(stateful, claim, f"{volume}-{name}")
            others = [one for one in pod["spec"].get("volumes") or () if one["name"] != volume]
            mine = {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}"}}
            pod["spec"]["volumes"] = [*others, mine]
        return pod

    def _claim(self, stateful: Obj, template: Obj, name: str) -> None:
        namespace = stateful["metadata"]["namespace"]
        if self.store.get(CLAIMS, namespace, name) is None:
            claim = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace, "labels": dict(labels_of(stateful))},
                "spec": dict(template.get("spec") or {}),
                "status": {"phase": "Pending"},
            }
            self.store.create(CLAIMS, claim)

    def _write_status(self, seen: Obj, current: str, update: str) -> float | None:
        have, replicas = self._pods(seen), seen["spec"].get("replicas", 1)
        found = [pod for pod in have.values() if not is_deleting(pod)]
        counts, again = pods.count(found, seen["spec"].get("minReadySeconds", 0), self.clock.now())
        updated = sum(revision_of(pod) == update for pod in found)
        if len(have) == updated == counts["availableReplicas"] == replicas and _rolling(seen)[0]:
            current = update
        counts |= {"updatedReplicas": updated, "currentReplicas": sum(revision_of(pod) == current for pod in found)}
        with self.changing(seen) as stateful:
            set_counts(stateful["status"], counts, always=("replicas", "availableReplicas"))
            stateful["status"] |= {
                "observedGeneration": seen["metadata"]["generation"],
                "currentRevision": current,
                "updateRevision": update,
                "collisionCount": 0,
            }
        self.forget_old(seen, {current, update, *map(revision_of, found)})
        return again


def _rolling(stateful: Obj) -> tuple[bool, Obj]:
    """Whether an update replaces pods, and its settings."""
    strategy = stateful["spec"].get("updateStrategy") or {}
    return strategy.get("type", "RollingUpdate") == "RollingUpdate", strategy.get("rollingUpdate") or {}

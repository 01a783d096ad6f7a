"""Deployment: one ReplicaSet per template, sized as `rollout` says, with revisions, history and a status that
`kubectl rollout` reads.

Laws:
  1. A ReplicaSet belongs to the template that it carries, apart from the pod-template-hash label. Going back to an
     old template finds the old ReplicaSet and gives it the newest revision.
  2. Complete: every pod is of the new template, all are available, and no old one is left. Only then old sets beyond
     revisionHistoryLimit are removed.
  3. No progress for progressDeadlineSeconds is written down (ProgressDeadlineExceeded); nothing is rolled back by
     itself.
"""

from typing import Any

from meshtls.lab.api.store import Event, Exists, clone
from meshtls.lab.controllers import progress
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import (
    Obj,
    annotations_of,
    controller_of,
    digest,
    is_deleting,
    key_of,
    owner_reference,
    says_new,
)
from meshtls.lab.controllers.progress import REVISION, revision_of
from meshtls.lab.controllers.queue import Key, Retry
from meshtls.lab.controllers.replicaset import owner_keys
from meshtls.lab.controllers.rollout import Set, limits, next_sizes

HASH = "pod-template-hash"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset({REVISION, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration"})


class Deployments:
    name = "deployment-controller"
    watches = frozenset({"deployments.apps", "replicasets.apps", "pods"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == "deployments.apps":
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        if event.resource == "replicasets.apps":
            return owner_keys(event, "Deployment")
        # a pod's end lets a Recreate go on
        ref = controller_of(event.object) if event.type == "DELETED" else None
        owner = self._hands.owners.where(ref["uid"]) if ref else None
        replica_set = self._hands.store.get(*owner) if owner else None
        above = controller_of(replica_set) if replica_set else None
        return (
            [(event.object["metadata"]["namespace"], above["name"])] if above and above["kind"] == "Deployment" else []
        )

    async def reconcile(self, namespace: str, name: str) -> float | None:
        store = self._hands.store
        deployment = store.get("deployments.apps", namespace, name)
        if deployment is None or is_deleting(deployment):
            return None
        step = self._new_set(deployment)
        while sizes := self._next(deployment):
            for set_name, size in sizes.items():
                self._resize(deployment, set_name, size)
        new, olds = self._sets(deployment)
        again = progress.write(self._hands, deployment, new, olds, step)
        deployment = store.get("deployments.apps", namespace, name)
        if deployment is not None and progress.is_complete(deployment):
            self._forget_old(deployment, olds)
        return again

    def _sets(self, deployment: Obj) -> tuple[Obj | None, list[Obj]]:
        """(the set of the present template, the others: oldest first)."""
        found = sorted(
            self._hands.owners.claimed(deployment, "replicasets.apps", deployment["spec"].get("selector")),
            key=lambda one: (one["metadata"]["creationTimestamp"], revision_of(one)),
        )
        new = next(
            (
                one
                for one in found
                if _without_hash(one["spec"]["template"]) == _without_hash(deployment["spec"]["template"])
            ),
            None,
        )
        return new, [one for one in found if one is not new]

    def _new_set(self, deployment: Obj) -> str:
        """Make sure that the present template has its set, with the newest revision. Returns the name of a set made
        anew, or ""."""
        new, olds = self._sets(deployment)
        revision = max((revision_of(old) for old in olds), default=0) + 1
        if new is None:
            if deployment["spec"].get("paused"):
                return ""
            return self._make_set(deployment, olds, revision)
        revision = max(revision, revision_of(new))
        copied = {key: value for key, value in annotations_of(deployment).items() if key not in NOT_COPIED}
        marks = {
            **copied,
            REVISION: str(revision),
            DESIRED: str(deployment["spec"].get("replicas", 1)),
            MOST: str(_most(deployment)),
        }

        min_ready_s = deployment["spec"].get("minReadySeconds", 0)

        def mark(obj: Obj) -> None:
            obj["metadata"].setdefault("annotations", {}).update(marks)
            obj["spec"]["minReadySeconds"] = min_ready_s

        if marks.items() - annotations_of(new).items() or new["spec"].get("minReadySeconds", 0) != min_ready_s:
            self._hands.store.mutate("replicasets.apps", *key_of(new), mark)
        return ""

    def _make_set(self, deployment: Obj, olds: list[Obj], revision: int) -> str:
        hands, spec = self._hands, deployment["spec"]
        namespace, name = key_of(deployment)
        mark = digest([spec["template"], (deployment.get("status") or {}).get("collisionCount", 0)])
        template = clone(spec["template"])
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH] = mark
        selector = clone(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH] = mark
        set_name = f"{name}-{mark}"
        size = next_sizes(spec, Set(set_name, 0, 0), _counts(olds), old_pods=self._has_pods(olds)).get(set_name, 0)
        copied = {key: value for key, value in annotations_of(deployment).items() if key not in NOT_COPIED}
        try:
            hands.store.create(
                "replicasets.apps",
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "metadata": {
                        "name": set_name,
                        "namespace": namespace,
                        "labels": dict(template["metadata"]["labels"]),
                        "annotations": {
                            **copied,
                            REVISION: str(revision),
                            DESIRED: str(spec.get("replicas", 1)),
                            MOST: str(_most(deployment)),
                        },
                        "ownerReferences": [owner_reference(deployment)],
                    },
                    "spec": {
                        "replicas": size,
                        "minReadySeconds": spec.get("minReadySeconds", 0),
                        "selector": selector,
                        "template": template,
                    },
                    "status": {"replicas": 0},
                },
            )
        except Exists as taken:
            hands.store.mutate("deployments.apps", namespace, name, _count_collision)
            raise Retry(str(taken)) from taken
        if size:
            hands.recorder.normal(
                deployment, self.name, "ScalingReplicaSet", f"Scaled up replica set {set_name} from 0 to {size}"
            )
        return set_name

    def _next(self, deployment: Obj) -> dict[str, int]:
        new, olds = self._sets(deployment)
        if new is None:
            *olds, new = olds or [None]
            if new is None:
                return {}
        return next_sizes(deployment["spec"], _counts([new])[0], _counts(olds), old_pods=self._has_pods(olds))

    def _has_pods(self, sets: list[Obj]) -> bool:
        return any(self._hands.owners.owned(one, "pods") for one in sets)

    def _resize(self, deployment: Obj, set_name: str, size: int) -> None:
        namespace = deployment["metadata"]["namespace"]
        replica_set = self._hands.store.get("replicasets.apps", namespace, set_name)
        before = replica_set["spec"].get("replicas", 1) if replica_set else 0

        def resize(obj: Obj) -> None:
            obj["spec"]["replicas"] = size
            _annotate(obj, DESIRED, str(deployment["spec"].get("replicas", 1)))
            _annotate(obj, MOST, str(_most(deployment)))

        self._hands.store.mutate("replicasets.apps", namespace, set_name, resize)
        self._hands.recorder.normal(
            deployment,
            self.name,
            "ScalingReplicaSet",
            f"Scaled {'up' if size > before else 'down'} replica set {set_name} from {before} to {size}",
        )

    def _forget_old(self, deployment: Obj, olds: list[Obj]) -> None:
        idle = [
            old
            for old in olds
            if not old["spec"].get("replicas", 1)
            and not (old.get("status") or {}).get("replicas")
            and not is_deleting(old)
        ]
        surplus = len(idle) - deployment["spec"].get("revisionHistoryLimit", 10)
        for old in sorted(idle, key=revision_of)[: max(surplus, 0)]:
            self._hands.store.delete("replicasets.apps", *key_of(old))


def _most(deployment: Obj) -> int:
    return int(deployment["spec"].get("replicas", 1)) + limits(deployment["spec"])[0]


def _counts(sets: list[Obj]) -> tuple[Set, ...]:
    return tuple(
        Set(
            one["metadata"]["name"],
            one["spec"].get("replicas", 1),
            (one.get("status") or {}).get("availableReplicas", 0),
        )
        for one in sets
    )


def _without_hash(template: Obj) -> dict[str, Any]:
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def _annotate(obj: Obj, key: str, value: str) -> None:
    obj["metadata"].setdefault("annotations", {})[key] = value


def _count_collision(obj: Obj) -> None:
    status = obj.setdefault("status", {})
    status["collisionCount"] = status.get("collisionCount", 0) + 1

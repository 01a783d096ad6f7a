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

from meshtls.lab.api.store import Event, Exists, clone
from meshtls.lab.controllers import progress
from meshtls.lab.controllers.controller import Workload
from meshtls.lab.controllers.objects import (
    Obj,
    annotations_of,
    child,
    controller_of,
    digest,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    status_of,
    surplus,
)
from meshtls.lab.controllers.progress import REVISION, revision_of
from meshtls.lab.controllers.rollout import Set, limits, next_sizes

HASH = "pod-template-hash"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset({REVISION, DESIRED, MOST, "kubectl.kubernetes.io/last-applied-configuration"})
SETS = "replicasets.apps"


class Deployments(Workload):
    name, resource, kind = "deployment-controller", "deployments.apps", "Deployment"
    watches = frozenset({resource, SETS, "pods"})

    def keys(self, event: Event) -> list[tuple[str, str]]:
        if event.resource != "pods":
            return super().keys(event)
        # a pod's end lets a Recreate go on
        ref = controller_of(event.object) if event.type == "DELETED" else None
        return self.controlling(self.owners.find(ref["uid"])) if ref else []

    async def sync(self, deployment: Obj) -> float | None:
        made = self._lead(deployment)
        while self._turn(deployment):
            pass
        new, olds = self._sets(deployment)
        with self.changing(deployment) as draft:
            again = progress.tell(draft, new, olds, made, self.clock.now())
        if progress.is_complete(draft):
            idle = [
                old
                for old in olds
                if not old["spec"].get("replicas", 1) and not status_of(old).get("replicas") and not is_deleting(old)
            ]
            for old in surplus(idle, deployment["spec"].get("revisionHistoryLimit", 10), revision_of):
                self.store.delete(SETS, *key_of(old))
        return again

    def _sets(self, deployment: Obj) -> tuple[Obj | None, list[Obj]]:
        """(the set of the present template, the others: oldest first)."""
        found = sorted(
            self.owners.claimed(deployment, SETS),
            key=lambda one: (one["metadata"]["creationTimestamp"], revision_of(one)),
        )
        wanted = _without_hash(deployment["spec"]["template"])
        new = next((one for one in found if _without_hash(one["spec"]["template"]) == wanted), None)
        return new, [one for one in found if one is not new]

    def _lead(self, deployment: Obj) -> str:
        """Make sure that the present template has its set, with the newest revision. Returns the name of a set made
        anew, or ""."""
        spec, (found, olds) = deployment["spec"], self._sets(deployment)
        if found is None and spec.get("paused"):
            return ""
        new = clone(found) if found else _draft(deployment)
        revision = max([1, revision_of(new), *(revision_of(old) + 1 for old in olds)])
        copied = {key: value for key, value in annotations_of(deployment).items() if key not in NOT_COPIED}
        new["metadata"].setdefault("annotations", {}).update(copied, **{REVISION: str(revision)})
        new["spec"]["minReadySeconds"] = spec.get("minReadySeconds", 0)
        if found:
            self._put(deployment, new, found["spec"].get("replicas", 1))
            return ""
        try:
            self._put(deployment, new, self._sizes(deployment, new, olds).get(name_of(new), 0))
        except Exists:
            with self.changing(deployment) as draft:
                draft["status"]["collisionCount"] = draft["status"].get("collisionCount", 0) + 1
            raise
        return name_of(new)

    def _turn(self, deployment: Obj) -> bool:
        """Resize what may be resized now; False when there is nothing to do but wait."""
        new, olds = self._sets(deployment)
        if new is None:
            *olds, new = olds or [None]
        sizes = self._sizes(deployment, new, olds) if new else {}
        for one in [*olds, new]:
            if one and name_of(one) in sizes:
                self._put(deployment, one, sizes[name_of(one)])
        return bool(sizes)

    def _sizes(self, deployment: Obj, new: Obj, olds: list[Obj]) -> dict[str, int]:
        counts = [
            Set(name_of(one), one["spec"].get("replicas", 1), status_of(one).get("availableReplicas", 0))
            for one in (new, *olds)
        ]
        old_pods = any(self.owners.owned(one, "pods") for one in olds)
        return next_sizes(deployment["spec"], counts[0], tuple(counts[1:]), old_pods=old_pods)

    def _put(self, deployment: Obj, one: Obj, size: int) -> None:
        """Store a set at this size, with what its Deployment writes on it, and say so."""
        before, replicas = one["spec"].get("replicas", 1), int(deployment["spec"].get("replicas", 1))
        draft = clone(one)
        draft["spec"]["replicas"] = size
        marks = {DESIRED: str(replicas), MOST: str(replicas + limits(deployment["spec"])[0])}
        draft["metadata"].setdefault("annotations", {}).update(marks)
        if "uid" in draft["metadata"]:
            self.store.update(SETS, draft)
        else:
            self.store.create(SETS, draft)
        if size != before:
            verb = "up" if size > before else "down"
            message = f"Scaled {verb} replica set {name_of(one)} from {before} to {size}"
            self.say(deployment, "ScalingReplicaSet", message)


def _draft(deployment: Obj) -> Obj:
    """The set of the present template, before it is stored."""
    spec = clone(deployment["spec"])
    mark = digest([spec["template"], status_of(deployment).get("collisionCount", 0)])
    for place, key in ((spec["template"].setdefault("metadata", {}), "labels"), (spec["selector"], "matchLabels")):
        place.setdefault(key, {})[HASH] = mark
    made = child(deployment, "apps/v1", "ReplicaSet", name=f"{name_of(deployment)}-{mark}")
    made["metadata"]["labels"] = dict(labels_of(spec["template"]))
    return {
        **made,
        "spec": {"replicas": 0, "selector": spec["selector"], "template": spec["template"]},
        "status": {"replicas": 0},
    }


def _without_hash(template: Obj) -> Obj:
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}

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

from meshtls.lab.api.store import Event, clone
from meshtls.lab.controllers import pods, progress
from meshtls.lab.controllers.controller import Workload
from meshtls.lab.controllers.objects import (
    Obj,
    annotations_of,
    child,
    controller_of,
    digest,
    key_of,
    labels_of,
    name_of,
    set_counts,
    status_of,
    surplus,
)
from meshtls.lab.controllers.progress import REVISION, revision_of
from meshtls.lab.controllers.rollout import Set, limits, next_sizes, recreates

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
        spec, made, written = deployment["spec"], "", True
        while written:
            new, olds = self._sets(deployment)
            busy = any(not pods.is_done(pod) for old in olds for pod in self.owners.owned(old, "pods"))
            if new is None and not spec.get("paused") and not (recreates(spec) and (busy or any(map(_wanted, olds)))):
                new = _draft(deployment)
                made = name_of(new)
            written = self._turn(deployment, new, olds, busy)
        with self.changing(deployment) as draft:
            again = progress.tell(draft, new, olds, made, self.clock.now())
        if progress.is_complete(draft):
            gone = [old for old in olds if not _wanted(old) and not status_of(old).get("replicas")]
            for old in surplus(gone, spec.get("revisionHistoryLimit", 10), revision_of):
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

    def _turn(self, deployment: Obj, new: Obj | None, olds: list[Obj], busy: bool) -> bool:
        """Write what is to be written now: the newest revision on the new set, and sizes. False when there is nothing
        to do but wait."""
        every = [*olds, new] if new else olds
        sizes = next_sizes(deployment["spec"], _count(new) if new else None, tuple(map(_count, olds)), old_pods=busy)
        written = False
        for one in every:
            before = _wanted(one)
            size = sizes.get(name_of(one), before)
            draft = {**one, "metadata": clone(one["metadata"]), "spec": {**one["spec"], "replicas": size}}
            if one is new:
                _lead(draft, deployment, max([1, revision_of(new), *(revision_of(old) + 1 for old in olds)]))
            if one is new or size != before:
                replicas, surge = int(deployment["spec"].get("replicas", 1)), limits(deployment["spec"])[0]
                marks = {DESIRED: str(replicas), MOST: str(replicas + surge)}
                draft["metadata"].setdefault("annotations", {}).update(marks)
            if "uid" not in draft["metadata"]:
                self.store.create(SETS, draft)
            elif draft != one:
                self.store.update(SETS, draft)
            else:
                continue
            written = True
            if size != before:
                verb = "up" if size > before else "down"
                message = f"Scaled {verb} replica set {name_of(one)} from {before} to {size}"
                self.say(deployment, "ScalingReplicaSet", message)
        return written


def _wanted(replica_set: Obj) -> int:
    return int(replica_set["spec"].get("replicas", 1))


def _count(replica_set: Obj) -> Set:
    return Set(name_of(replica_set), _wanted(replica_set), status_of(replica_set).get("availableReplicas", 0))


def _lead(replica_set: Obj, deployment: Obj, revision: int) -> None:
    """Make it the set that the Deployment is at."""
    copied = {key: value for key, value in annotations_of(deployment).items() if key not in NOT_COPIED}
    replica_set["metadata"].setdefault("annotations", {}).update(copied, **{REVISION: str(revision)})
    set_counts(replica_set["spec"], {"minReadySeconds": deployment["spec"].get("minReadySeconds", 0)})


def _draft(deployment: Obj) -> Obj:
    """The set of the present template, before it is stored."""
    spec = clone(deployment["spec"])
    mark = digest(spec["template"])
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

"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, for `rollout history`, `rollout undo`
and partitions.

A template that was there before keeps its name and gets the newest number. As many old ones stay as
revisionHistoryLimit says.
"""

from meshtls.lab.api.store import clone
from meshtls.lab.controllers.controller import Workload
from meshtls.lab.controllers.objects import Obj, annotations_of, child, digest, key_of, labels_of, name_of, surplus

RESOURCE = "controllerrevisions.apps"
HASH = "controller-revision-hash"


class Revised(Workload):
    """A workload whose pods tell which revision they were made from."""

    mark = HASH
    """The label of a revision that tells the template's hash."""

    def revision(self, owner: Obj) -> str:
        """The revision's name for the owner's present template, made if it is new."""
        template, labels = owner["spec"]["template"], labels_of(owner["spec"]["template"])
        wanted = f"{name_of(owner)}-{digest(template)}"
        numbers = {name_of(one): one["revision"] for one in self.owners.owned(owner, RESOURCE)}
        newest = max(numbers.values(), default=0)
        if wanted not in numbers:
            # the owner's annotations tell the cause of the change
            about = {"labels": {**labels, self.mark: digest(template)}, "annotations": annotations_of(owner)}
            made = child(owner, "apps/v1", "ControllerRevision", {"metadata": about}, name=wanted)
            data = {"spec": {"template": {**clone(template), "$patch": "replace"}}}
            self.store.create(RESOURCE, {**made, "revision": newest + 1, "data": data})
        elif numbers[wanted] < newest:
            self.store.mutate(RESOURCE, key_of(owner)[0], wanted, lambda one: one.update(revision=newest + 1))
        return wanted

    def template(self, owner: Obj, revision: str) -> Obj:
        """The template of a revision; the owner's own when the revision is gone."""
        found = self.store.get(RESOURCE, key_of(owner)[0], revision)
        if found is None:
            return dict(owner["spec"]["template"])
        return {key: value for key, value in found["data"]["spec"]["template"].items() if key != "$patch"}

    def forget_old(self, owner: Obj, in_use: set[str]) -> None:
        """Remove what is beyond revisionHistoryLimit and used by no pod."""
        idle = [one for one in self.owners.owned(owner, RESOURCE) if name_of(one) not in in_use]
        for one in surplus(idle, owner["spec"].get("revisionHistoryLimit", 10), lambda one: one["revision"]):
            self.store.delete(RESOURCE, *key_of(one))


def revision_of(pod: Obj) -> str:
    """The revision that a pod was made from, as its label says."""
    return labels_of(pod).get(HASH, "")

"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, for `rollout history`, `rollout undo`
and partitions.

A template that was there before keeps its name and gets the newest number. As many old ones stay as
revisionHistoryLimit says.
"""

from meshtls.lab.api.store import Store, clone
from meshtls.lab.controllers.objects import (
    Obj,
    annotations_of,
    child,
    digest,
    key_of,
    labels_of,
    name_of,
    surplus,
    template_labels,
)
from meshtls.lab.controllers.owners import Owners

RESOURCE = "controllerrevisions.apps"
HASH = "controller-revision-hash"


def current(store: Store, owners: Owners, owner: Obj, label: str = HASH) -> str:
    """The revision's name for the owner's present template, made if it is new, its hash under that label."""
    template = owner["spec"]["template"]
    mark = digest(template)
    wanted = f"{name_of(owner)}-{mark}"
    numbers = {name_of(one): one["revision"] for one in owners.owned(owner, RESOURCE)}
    newest = max(numbers.values(), default=0)
    if wanted not in numbers:
        # the owner's annotations tell the cause of the change
        about = {"labels": {**template_labels(owner), label: mark}, "annotations": annotations_of(owner)}
        made = child(owner, "apps/v1", "ControllerRevision", {"metadata": about}, name=wanted)
        data = {"spec": {"template": {**clone(template), "$patch": "replace"}}}
        store.create(RESOURCE, {**made, "revision": newest + 1, "data": data})
    elif numbers[wanted] < newest:
        store.mutate(RESOURCE, key_of(owner)[0], wanted, lambda one: one.update(revision=newest + 1))
    return wanted


def template(store: Store, owner: Obj, revision: str) -> Obj:
    """The template of a revision; the owner's own when the revision is gone."""
    found = store.get(RESOURCE, key_of(owner)[0], revision)
    if found is None:
        return dict(owner["spec"]["template"])
    return {key: value for key, value in found["data"]["spec"]["template"].items() if key != "$patch"}


def forget_old(store: Store, owners: Owners, owner: Obj, in_use: set[str]) -> None:
    """Remove what is beyond revisionHistoryLimit and used by no pod."""
    idle = [one for one in owners.owned(owner, RESOURCE) if name_of(one) not in in_use]
    for one in surplus(idle, owner["spec"].get("revisionHistoryLimit", 10), lambda one: one["revision"]):
        store.delete(RESOURCE, *key_of(one))


def of(pod: Obj) -> str:
    """The revision that a pod was made from, as its label says."""
    return labels_of(pod).get(HASH, "")

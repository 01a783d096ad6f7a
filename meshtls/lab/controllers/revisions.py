"""ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, for `rollout history`, `rollout undo`
and partitions.

A template that was there before keeps its name and gets the newest number. As many old ones stay as
revisionHistoryLimit says.
"""

from meshtls.lab.api.store import clone
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, digest, key_of, owner_reference

RESOURCE = "controllerrevisions.apps"
HASH = "controller-revision-hash"


def current(hands: Hands, owner: Obj) -> str:
    """The revision's name for the owner's present template, made if it is new."""
    namespace, name = key_of(owner)
    template = owner["spec"]["template"]
    known = hands.owners.owned(owner, RESOURCE)
    wanted = f"{name}-{digest(template)}"
    newest = max((one["revision"] for one in known), default=0)
    found = next((one for one in known if one["metadata"]["name"] == wanted), None)
    if found is None:
        hands.store.create(
            RESOURCE,
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "name": wanted,
                    "namespace": namespace,
                    "ownerReferences": [owner_reference(owner)],
                    "labels": {
                        **((template.get("metadata") or {}).get("labels") or {}),
                        HASH: wanted.removeprefix(f"{name}-"),
                    },
                },
                "revision": newest + 1,
                "data": {"spec": {"template": {**clone(template), "$patch": "replace"}}},
            },
        )
    elif found["revision"] < newest:
        hands.store.mutate(RESOURCE, namespace, wanted, lambda one: one.update(revision=newest + 1))
    return wanted


def template(hands: Hands, owner: Obj, revision: str) -> Obj:
    """The template of a revision; the owner's own when the revision is gone."""
    found = hands.store.get(RESOURCE, owner["metadata"]["namespace"], revision)
    if found is None:
        return dict(owner["spec"]["template"])
    return {key: value for key, value in found["data"]["spec"]["template"].items() if key != "$patch"}


def forget_old(hands: Hands, owner: Obj, in_use: set[str]) -> None:
    """Remove what is beyond revisionHistoryLimit and used by no pod."""
    idle = [one for one in hands.owners.owned(owner, RESOURCE) if one["metadata"]["name"] not in in_use]
    surplus = len(idle) - owner["spec"].get("revisionHistoryLimit", 10)
    for one in sorted(idle, key=lambda one: one["revision"])[: max(surplus, 0)]:
        hands.store.delete(RESOURCE, *key_of(one))

"""Owner-reference garbage collection.

Laws (pkg/controller/garbagecollector):
  1. An object all of whose owners are gone is deleted; one that keeps an owner only loses the references to the gone
     ones.
  2. Foreground (finalizer foregroundDeletion): the dependents go first; the owner goes when no dependent with
     blockOwnerDeletion is left.
  3. Orphan (finalizer orphan): the dependents lose their reference and stay.
  4. An owner in another namespace counts as gone, unless it is cluster-scoped.
The API turns a request's propagationPolicy into those finalizers.
"""

from collections.abc import Callable

from meshtls.lab.api.store import Event
from meshtls.lab.controllers.controller import Controller
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of
from meshtls.lab.controllers.owners import disown

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class GarbageCollector(Controller):
    name = "garbage-collector"

    def keys(self, event: Event) -> list[tuple[str, str]]:
        """Keys are uids here: ("", uid)."""
        metadata = event.object["metadata"]
        owners = metadata.get("ownerReferences") or ()
        if event.type == "DELETED":
            waiting = [owner["uid"] for owner in owners if self._waits(owner["uid"])]
            return [("", uid) for uid in (*self.owners.dependents(metadata["uid"]), *waiting)]
        if _holder(event.object) or not all(self._owns(owner, event.object) for owner in owners):
            return [("", metadata["uid"])]
        return []

    async def reconcile(self, namespace: str, name: str) -> float | None:
        obj = self.owners.find(name)
        holder = _holder(obj) if obj else ""
        if not holder:
            self._collect(name)
            return None
        for dependent in self.owners.dependents(name):
            if holder == ORPHAN:
                self._change(dependent, lambda one: disown(one, name))
            else:
                self._collect(dependent)
        if not any(self._blocks(dependent, name) for dependent in self.owners.dependents(name)):
            self._change(name, lambda one: one["metadata"]["finalizers"].remove(holder))
        return None

    def _waits(self, uid: str) -> bool:
        """Whether that object is being deleted in the foreground."""
        obj = self.owners.find(uid)
        return obj is not None and _holder(obj) == FOREGROUND

    def _owns(self, owner: Obj, dependent: Obj) -> bool:
        """Whether the reference leads to an object that stays."""
        ref = self.owners.where(owner.get("uid", ""))
        return ref is not None and ref[1] in ("", key_of(dependent)[0]) and not self._waits(owner["uid"])

    def _blocks(self, uid: str, owner: str) -> bool:
        """Whether a dependent holds its owner's deletion up."""
        references = ((self.owners.find(uid) or {}).get("metadata") or {}).get("ownerReferences") or ()
        return any(ref.get("blockOwnerDeletion") for ref in references if ref["uid"] == owner)

    def _collect(self, uid: str) -> None:
        """Delete what has lost its owners; take away the references to some that are gone."""
        ref, obj = self.owners.where(uid), self.owners.find(uid)
        if ref is None or obj is None:
            return
        references = obj["metadata"].get("ownerReferences") or ()
        staying = [owner for owner in references if self._owns(owner, obj)]
        if staying:
            self._change(uid, lambda one: one["metadata"].update(ownerReferences=staying))
        elif references and not is_deleting(obj):
            if self.owners.dependents(uid) and any(self._waits(owner["uid"]) for owner in references):
                self._change(uid, lambda one: one["metadata"].setdefault("finalizers", []).append(FOREGROUND))
            self.store.delete(*ref)

    def _change(self, uid: str, change: Callable[[Obj], None]) -> None:
        if ref := self.owners.where(uid):
            self.store.mutate(*ref, change)


def _holder(obj: Obj) -> str:
    """The finalizer that keeps an object in being for its dependents' sake; "" for none."""
    finalizers = obj["metadata"].get("finalizers") or () if is_deleting(obj) else ()
    return next((one for one in (ORPHAN, FOREGROUND) if one in finalizers), "")

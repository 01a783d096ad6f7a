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

from meshtls.lab.api.store import Event
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of
from meshtls.lab.controllers.owners import Ref
from meshtls.lab.controllers.queue import Key

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class GarbageCollector:
    name = "garbage-collector"
    watches: frozenset[str] = frozenset()

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        """Keys are uids here: ("", uid)."""
        metadata = event.object["metadata"]
        found = []
        if event.type == "DELETED":
            found += [self._uid(ref) for ref in self._hands.owners.dependents(metadata["uid"])]
            found += [owner["uid"] for owner in metadata.get("ownerReferences") or () if self._waits(owner["uid"])]
        elif is_deleting(event.object) and {FOREGROUND, ORPHAN} & set(metadata.get("finalizers") or ()):
            found.append(metadata["uid"])
        elif metadata.get("ownerReferences"):
            found += (
                [metadata["uid"]]
                if any(not self._owns(owner, event.object) for owner in metadata["ownerReferences"])
                else []
            )
        return [("", uid) for uid in found if uid]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        ref = self._hands.owners.where(name)
        obj = self._hands.store.get(*ref) if ref else None
        if ref is None or obj is None:
            return None
        finalizers = obj["metadata"].get("finalizers") or ()
        if is_deleting(obj) and ORPHAN in finalizers:
            self._orphan(ref, obj)
        elif is_deleting(obj) and FOREGROUND in finalizers:
            self._delete_dependents(ref, obj)
        elif obj["metadata"].get("ownerReferences"):
            self._collect(ref, obj)
        return None

    def _uid(self, ref: Ref) -> str:
        obj = self._hands.store.get(*ref)
        return obj["metadata"]["uid"] if obj else ""

    def _waits(self, uid: str) -> bool:
        """Whether that object is being deleted in the foreground."""
        ref = self._hands.owners.where(uid)
        obj = self._hands.store.get(*ref) if ref else None
        return obj is not None and is_deleting(obj) and FOREGROUND in (obj["metadata"].get("finalizers") or ())

    def _owns(self, owner: Obj, dependent: Obj) -> bool:
        """Whether the reference leads to an object that stays."""
        ref = self._hands.owners.where(owner.get("uid", ""))
        return ref is not None and ref[1] in ("", key_of(dependent)[0]) and not self._waits(owner["uid"])

    def _collect(self, ref: Ref, obj: Obj) -> None:
        references = obj["metadata"]["ownerReferences"]
        staying = [owner for owner in references if self._owns(owner, obj)]
        if not staying:
            self._delete(ref, obj, foreground=any(self._waits(owner.get("uid", "")) for owner in references))
        elif len(staying) < len(references):
            self._hands.store.mutate(*ref, lambda one: one["metadata"].update(ownerReferences=staying))

    def _delete(self, ref: Ref, obj: Obj, *, foreground: bool) -> None:
        if is_deleting(obj):
            return
        if foreground and self._hands.owners.dependents(obj["metadata"]["uid"]):
            self._hands.store.mutate(*ref, lambda one: one["metadata"].setdefault("finalizers", []).append(FOREGROUND))
        self._hands.store.delete(*ref)

    def _delete_dependents(self, ref: Ref, owner: Obj) -> None:
        uid = owner["metadata"]["uid"]
        for dependent in self._hands.owners.dependents(uid):
            if (obj := self._hands.store.get(*dependent)) is not None and not is_deleting(obj):
                self._collect(dependent, obj)
        left = (self._hands.store.get(*dependent) for dependent in self._hands.owners.dependents(uid))
        if not any(
            one.get("blockOwnerDeletion")
            for obj in left
            if obj
            for one in obj["metadata"]["ownerReferences"]
            if one["uid"] == uid
        ):
            self._hands.store.mutate(*ref, lambda one: one["metadata"]["finalizers"].remove(FOREGROUND))

    def _orphan(self, ref: Ref, owner: Obj) -> None:
        uid = owner["metadata"]["uid"]
        for dependent in self._hands.owners.dependents(uid):
            self._hands.store.mutate(
                *dependent,
                lambda one: one["metadata"].update(
                    ownerReferences=[kept for kept in one["metadata"]["ownerReferences"] if kept["uid"] != uid]
                ),
            )
        self._hands.store.mutate(*ref, lambda one: one["metadata"]["finalizers"].remove(ORPHAN))

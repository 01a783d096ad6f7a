"""Who owns what: an index over ownerReferences, kept up by the store's events, and the claiming of objects by selector.

Laws:
  1. An owner exists if its uid does. Names are not asked: an object made anew under an old name owns nothing of the
     old one.
  2. A controller owns what carries its uid and matches its selector. It adopts what matches and has no controller, and
     releases what no longer matches (kubectl label pod x app- takes a pod out of its ReplicaSet).
"""

from meshtls.lab.api.select import selected
from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.objects import Obj, controller_of, is_deleting, key_of, labels_of, owner_reference

Ref = tuple[str, str, str]
"""Resource, namespace, name."""


class Owners:
    """The index. `heard` must see every event before it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._where: dict[str, Ref] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        """By `_keys`: the uids of what is held there."""

    def heard(self, event: Event) -> None:
        if event.old is not None:
            self._forget(event.resource, event.old)
        if event.type != "DELETED":
            self._add(event.resource, event.object)

    def where(self, uid: str) -> Ref | None:
        """The place of the object of that uid, if there is one."""
        return self._where.get(uid)

    def find(self, uid: str) -> Obj | None:
        """The object of that uid, if there is one."""
        ref = self._where.get(uid)
        return self._store.get(*ref) if ref else None

    def dependents(self, uid: str) -> tuple[str, ...]:
        """The uids of what names that object as an owner."""
        return tuple(self._dependents.get(uid, ()))

    def owned(self, owner: Obj, resource: str) -> list[Obj]:
        """Objects of a resource that `owner` controls, by name."""
        uid = owner["metadata"]["uid"]
        refs = sorted(self._where[one] for one in self.dependents(uid) if self._where[one][0] == resource)
        found = (self._store.get(*ref) for ref in refs)
        return [obj for obj in found if obj is not None and (controller_of(obj) or {}).get("uid") == uid]

    def claimed(self, owner: Obj, resource: str) -> list[Obj]:
        """As `owned`, after adopting and releasing by the owner's selector."""
        namespace, selector = owner["metadata"]["namespace"], owner["spec"].get("selector")
        for obj in self.owned(owner, resource):
            if not is_deleting(obj) and not selected(selector, labels_of(obj)):
                self._store.mutate(resource, *key_of(obj), lambda one: disown(one, owner["metadata"]["uid"]))
        for orphan in map(self.find, self.dependents(f"{resource}/{namespace}")):
            if orphan is not None and not is_deleting(orphan) and selected(selector, labels_of(orphan)):
                self._store.mutate(resource, *key_of(orphan), lambda one: _adopt(one, owner))
        return self.owned(owner, resource)

    def _add(self, resource: str, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        self._where[uid] = (resource, *key_of(obj))
        for key in _keys(resource, obj):
            self._dependents.setdefault(key, {})[uid] = None

    def _forget(self, resource: str, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        self._where.pop(uid, None)
        for key in _keys(resource, obj):
            held = self._dependents.get(key, {})
            held.pop(uid, None)
            if not held:
                self._dependents.pop(key, None)


def disown(obj: Obj, uid: str) -> None:
    """Take that owner away."""
    obj["metadata"]["ownerReferences"] = [ref for ref in obj["metadata"]["ownerReferences"] if ref["uid"] != uid]


def _adopt(obj: Obj, owner: Obj) -> None:
    obj["metadata"].setdefault("ownerReferences", []).append(owner_reference(owner))


def _keys(resource: str, obj: Obj) -> list[str]:
    """Where the index holds an object: at its owners' uids, and with its like in its namespace if none controls it."""
    uids = [ref["uid"] for ref in obj["metadata"].get("ownerReferences") or () if ref.get("uid")]
    return uids if controller_of(obj) else [*uids, f"{resource}/{key_of(obj)[0]}"]

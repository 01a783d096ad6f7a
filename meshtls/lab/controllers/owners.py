"""Who owns what: an index over ownerReferences, kept up by the store's events, and the claiming of objects by selector.

Laws:
  1. An owner exists if its uid does. Names are not asked: an object made anew under an old name owns nothing of the
     old one.
  2. A controller owns what carries its uid and matches its selector. It adopts what matches and has no controller, and
     releases what no longer matches (kubectl label pod x app- takes a pod out of its ReplicaSet).
"""

from collections.abc import Iterable

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.objects import Obj, controller_of, is_deleting, key_of, labels_of, matches, owner_reference

Ref = tuple[str, str, str]
"""Resource, namespace, name."""


class Owners:
    """The index. `heard` must see every event before it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._where: dict[str, Ref] = {}
        self._dependents: dict[str, dict[Ref, None]] = {}
        self._free: dict[tuple[str, str], dict[str, None]] = {}

    def load(self) -> None:
        """Take in what the store holds already."""
        for resource in self._store.resources():
            for obj in self._store.list(resource):
                self._add(resource, obj)

    def heard(self, event: Event) -> None:
        if event.old is not None:
            self._forget(event.resource, event.old)
        if event.type != "DELETED":
            self._add(event.resource, event.object)

    def where(self, uid: str) -> Ref | None:
        """The object of that uid, if there is one."""
        return self._where.get(uid)

    def dependents(self, uid: str) -> tuple[Ref, ...]:
        return tuple(self._dependents.get(uid, ()))

    def owned(self, owner: Obj, resource: str) -> list[Obj]:
        """Objects of a resource that `owner` controls, by name."""
        uid = owner["metadata"]["uid"]
        refs = sorted(ref for ref in self._dependents.get(uid, ()) if ref[0] == resource)
        found = (self._store.get(*ref) for ref in refs)
        return [obj for obj in found if obj is not None and (controller_of(obj) or {}).get("uid") == uid]

    def claimed(self, owner: Obj, resource: str, selector: Obj | None) -> list[Obj]:
        """As `owned`, after adopting and releasing by selector."""
        namespace = owner["metadata"]["namespace"]
        for obj in self.owned(owner, resource):
            if not matches(selector, labels_of(obj)) and not is_deleting(obj):
                self._store.mutate(resource, *key_of(obj), lambda free: _release(free, owner))
        for name in self._orphans(resource, namespace, selector):
            self._store.mutate(resource, namespace, name, lambda found: _adopt(found, owner))
        return self.owned(owner, resource)

    def _orphans(self, resource: str, namespace: str, selector: Obj | None) -> list[str]:
        named = (
            (name, self._store.get(resource, namespace, name))
            for name in tuple(self._free.get((resource, namespace), ()))
        )
        return [
            name
            for name, obj in named
            if obj is not None and not is_deleting(obj) and matches(selector, labels_of(obj))
        ]

    def _add(self, resource: str, obj: Obj) -> None:
        namespace, name = key_of(obj)
        self._where[obj["metadata"]["uid"]] = (resource, namespace, name)
        for uid in _owner_uids(obj):
            self._dependents.setdefault(uid, {})[resource, namespace, name] = None
        if controller_of(obj) is None:
            self._free.setdefault((resource, namespace), {})[name] = None

    def _forget(self, resource: str, obj: Obj) -> None:
        namespace, name = key_of(obj)
        self._where.pop(obj["metadata"]["uid"], None)
        self._free.get((resource, namespace), {}).pop(name, None)
        for uid in _owner_uids(obj):
            held = self._dependents.get(uid, {})
            held.pop((resource, namespace, name), None)
            if not held:
                self._dependents.pop(uid, None)


def _owner_uids(obj: Obj) -> Iterable[str]:
    return (ref["uid"] for ref in obj["metadata"].get("ownerReferences") or () if ref.get("uid"))


def _adopt(obj: Obj, owner: Obj) -> None:
    obj["metadata"].setdefault("ownerReferences", []).append(owner_reference(owner))


def _release(obj: Obj, owner: Obj) -> None:
    uid = owner["metadata"]["uid"]
    obj["metadata"]["ownerReferences"] = [ref for ref in obj["metadata"]["ownerReferences"] if ref["uid"] != uid]

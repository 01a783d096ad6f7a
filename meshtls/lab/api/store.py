"""The lab's only state: JSON objects by resource, namespace and name, under one increasing version.

Laws:
  1. Every write takes the next version and puts it into metadata.resourceVersion; a removal takes one too (its event
     carries it).
  2. A stored object is never changed in place: whoever wants to change one copies it (`clone`) and calls `update`, or
     uses `mutate`.
  3. A write that changes nothing is no write: no version, no event.
  4. Subscribers are called synchronously, in order of writing. A subscriber may write; what it writes is told after the
     event at hand.
  5. An object with finalizers is only marked by `delete`; it goes when the last finalizer goes.

`resource` is "plural" or "plural.group": "pods", "deployments.apps". Namespace "" is that of cluster-scoped objects.
Writes through the store skip validation, admission and RBAC: they are the controllers' and the node's own. What must
pass admission (a pod that a controller makes: defaults, Pod Security, injection, webhooks) goes through `submit`.
"""
import datetime
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshtls.lab.api.resources import BUILTIN

HISTORY = 20_000
"""Events kept for watches; an older resourceVersion is answered with 410 Gone."""

_UNCOUNTED = frozenset(one.name for one in BUILTIN if "g" not in one.traits)
"""Resources without a generation."""


class Event(msgspec.Struct, frozen=True):
    """One write. `type` is ADDED, MODIFIED or DELETED; `old` is the object before it (None for ADDED)."""

    type: str
    resource: str
    object: dict[str, Any]
    old: dict[str, Any] | None

    @property
    def version(self) -> int:
        return int(self.object["metadata"]["resourceVersion"])


class StoreError(Exception):
    """Base of what a write can meet; carries the resource and the name."""

    def __init__(self, resource: str, name: str) -> None:
        super().__init__(f"{resource} {name!r}")
        self.resource, self.name = resource, name


class Exists(StoreError):
    """An object of that name is there already."""


class Stale(StoreError):
    """The given resourceVersion (or uid) is not the stored one's."""


class Missing(StoreError):
    """There is no such object."""


class Gone(Exception):
    """The history no longer reaches back to the asked version."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {asked} ({oldest})")


def clone(value: Any) -> Any:
    """A deep copy of a JSON value (several times faster than copy.deepcopy)."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def now_text() -> str:
    """The time as the API writes it: UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta(obj: dict[str, Any]) -> dict[str, Any]:
    return obj.get("metadata") or {}


class Store:
    """All objects. Every method is synchronous and belongs to the event loop's thread."""

    def __init__(self, *, now: Callable[[], str] = now_text, history: int = HISTORY) -> None:
        self.version = 0
        self.now = now
        self.admitter: Callable[[str, dict[str, Any], str, Callable[[Any], None]], None] | None = None
        self._objects: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        self._history: deque[Event] = deque(maxlen=history)
        self._compacted = 0
        self._subscribers: list[Callable[[Event], None]] = []
        self._queue: deque[Event] = deque()
        self._telling = False

    # reading

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The stored object itself (never to be changed), or None."""
        return self._objects.get(resource, {}).get(namespace or "", {}).get(name)

    def list(self, resource: str, namespace: str = "", labels: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """Objects sorted by namespace and name; namespace "" means all of them. `labels` must all be equal."""
        spaces = self._objects.get(resource, {})
        chosen = [spaces.get(namespace, {})] if namespace else [spaces[key] for key in sorted(spaces)]
        found = [space[name] for space in chosen for name in sorted(space)]
        if not labels:
            return found
        return [obj for obj in found if labels.items() <= (meta(obj).get("labels") or {}).items()]

    def resources(self) -> tuple[str, ...]:
        """Every resource that ever held an object."""
        return tuple(self._objects)

    def since(self, resource: str, version: int) -> Iterator[Event]:
        """Events of a resource after `version`. Raises Gone when the history does not reach back that far."""
        if version < self._compacted:
            raise Gone(version, self._compacted)
        newer = []
        for event in reversed(self._history):
            if event.version <= version:
                break
            if event.resource == resource:
                newer.append(event)
        return reversed(newer)

    @property
    def oldest(self) -> int:
        """The version that the history begins after."""
        return self._compacted

    def compact(self) -> None:
        """Forget the history: a watch from before now is answered with 410 Gone (for tests of clients)."""
        self._history.clear()
        self._compacted = self.version

    # writing

    def create(self, resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Store a new object; returns it with uid, creationTimestamp, resourceVersion and generation. Raises Exists."""
        obj = clone(obj)
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        if self.get(resource, namespace, name) is not None:
            raise Exists(resource, name)
        metadata["uid"] = metadata.get("uid") or str(uuid.uuid4())
        metadata["creationTimestamp"] = metadata.get("creationTimestamp") or self.now()
        if resource not in _UNCOUNTED:
            metadata["generation"] = 1
        self._put(resource, namespace, name, obj)
        self._tell(Event("ADDED", resource, obj, None))
        return obj

    def update(self, resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Replace an object. Raises Missing, or Stale when a given resourceVersion or uid is not the stored one's."""
        metadata = meta(obj)
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        old = self.get(resource, namespace, name)
        if old is None:
            raise Missing(resource, name)
        before = old["metadata"]
        for key in ("resourceVersion", "uid"):
            if metadata.get(key) and metadata[key] != before[key]:
                raise Stale(resource, name)
        return self._replace(resource, old, clone(obj))

    def _replace(self, resource: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        """Store `new`, which belongs to the store from now on."""
        before = old["metadata"]
        for key in ("uid", "creationTimestamp", "resourceVersion", "generation"):
            if key in before:
                new["metadata"][key] = before[key]
        if new == old:
            return old
        if "generation" in before:
            new["metadata"]["generation"] = before["generation"] + (wanted(new) != wanted(old))
        if new["metadata"].get("deletionTimestamp") and self._may_go(resource, new):
            self._drop(resource, new, old)
            return new
        self._put(resource, before.get("namespace") or "", before["name"], new)
        self._tell(Event("MODIFIED", resource, new, old))
        return new

    def mutate(self, resource: str, namespace: str, name: str,
               change: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """Read, copy, change, update. None if the object is gone; no event when nothing changed."""
        old = self.get(resource, namespace, name)
        if old is None:
            return None
        new = clone(old)
        change(new)
        return self._replace(resource, old, new)

    def delete(self, resource: str, namespace: str, name: str, grace_s: int | None = None) -> None:
        """Begin removal: at once, or marked with deletionTimestamp while finalizers, a node (pods) or a namespace's
        contents hold it. Deleting what is not there does nothing. `grace_s` None is the object's own."""
        obj = self.get(resource, namespace, name)
        if obj is None:
            return
        marked = self.marked(resource, obj, grace_s)
        goes = self._may_go(resource, marked)
        if marked != obj and (resource == "pods" or not goes):
            self._put(resource, namespace, name, marked)
            self._tell(Event("MODIFIED", resource, marked, obj))
        if goes:
            self.remove(resource, namespace, name)

    def marked(self, resource: str, obj: dict[str, Any], grace_s: int | None = None) -> dict[str, Any]:
        """What `delete` makes of an object before it goes."""
        marked: dict[str, Any] = clone(obj)
        metadata = marked["metadata"]
        grace = self._grace(resource, obj, grace_s)
        if "deletionTimestamp" in metadata:
            left = metadata.get("deletionGracePeriodSeconds", 0)
            grace = left if grace_s is None else min(grace, left)
        else:
            metadata["deletionTimestamp"] = _later(self.now(), grace)
            if "generation" in metadata:
                metadata["generation"] += 1
        if resource != "namespaces":
            metadata["deletionGracePeriodSeconds"] = grace
        else:
            marked.setdefault("status", {})["phase"] = "Terminating"
        return marked

    def remove(self, resource: str, namespace: str, name: str) -> None:
        """Final removal, whatever held the object."""
        obj = self.get(resource, namespace, name)
        if obj is not None:
            self._drop(resource, clone(obj), obj)

    def submit(self, resource: str, obj: dict[str, Any], user: str, done: Callable[[Any], None] | None = None) -> None:
        """Create as `user` would over HTTP: defaults, admission, injection, webhooks. `done` is called, perhaps later,
        with the stored object or with the exception. Without an API around the store this is `create`."""
        told = done or (lambda _: None)
        if self.admitter is not None:
            self.admitter(resource, obj, user, told)
            return
        try:
            made = self.create(resource, obj)
        except Exists as error:
            told(error)
        else:
            told(made)

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Hear of every write from now on; returns what ends it."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)
        return unsubscribe

    # inside

    def _grace(self, resource: str, obj: dict[str, Any], asked: int | None) -> int:
        """Seconds; only a pod that a node runs has any."""
        if resource != "pods":
            return 0
        spec, phase = obj.get("spec") or {}, (obj.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
            return 0
        if asked is not None:
            return asked if asked >= 0 else 1
        return int(spec.get("terminationGracePeriodSeconds", 30))

    def _may_go(self, resource: str, obj: dict[str, Any]) -> bool:
        metadata = obj["metadata"]
        if metadata.get("finalizers"):
            return False
        if resource == "namespaces":
            return not (obj.get("spec") or {}).get("finalizers")
        return not metadata.get("deletionGracePeriodSeconds")

    def _put(self, resource: str, namespace: str, name: str, obj: dict[str, Any]) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects.setdefault(resource, {}).setdefault(namespace, {})[name] = obj

    def _drop(self, resource: str, obj: dict[str, Any], old: dict[str, Any]) -> None:
        metadata = old["metadata"]
        del self._objects[resource][metadata.get("namespace") or ""][metadata["name"]]
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Event("DELETED", resource, obj, old))

    def _tell(self, event: Event) -> None:
        if len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].version
        self._history.append(event)
        self._queue.append(event)
        if self._telling:
            return
        self._telling = True
        try:
            while self._queue:
                told = self._queue.popleft()
                for callback in tuple(self._subscribers):
                    callback(told)
        finally:
            self._telling = False


def wanted(obj: dict[str, Any]) -> dict[str, Any]:
    """What a generation counts: everything but metadata and status, and the node that a pod is given; of a Deployment the
    annotations too, without the revision that its controller writes; of an EndpointSlice the labels."""
    counted = {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    if obj.get("kind") == "Pod":
        counted["spec"] = {key: value for key, value in obj["spec"].items() if key != "nodeName"}
    if (obj.get("apiVersion"), obj.get("kind")) == ("apps/v1", "Deployment"):
        annotations = obj["metadata"].get("annotations") or {}
        counted["annotations"] = {key: value for key, value in annotations.items() if key != "deployment.kubernetes.io/revision"}
    if obj.get("kind") == "EndpointSlice":
        counted["labels"] = obj["metadata"].get("labels") or {}
    return counted


def _later(text: str, seconds: int) -> str:
    when = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") + datetime.timedelta(seconds=seconds)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")

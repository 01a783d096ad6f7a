"""The shape of every controller: which objects an event concerns, and how one of them is brought to what it declares.

A `Workload` makes other objects for its own: it looks at an object whenever that, or something that it controls,
changes. Pods and Jobs come into being through the API, admission and injection included. The creation of pods starts
with one and doubles while the API accepts (as Kubernetes' slowStartBatch), so that a refusal is met once and not a
hundred times.
"""

import abc
import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from meshtls.lab.api.store import Event, Store, clone
from meshtls.lab.controllers.objects import Obj, controller_of, is_deleting, key_of, name_of, says_new
from meshtls.lab.controllers.owners import Owners
from meshtls.lab.controllers.queue import Clock, Retry
from meshtls.lab.controllers.recorder import Recorder

USER = "system:serviceaccount:kube-system:replicaset-controller"
"""Who creates pods and Jobs."""


class Hands:
    """What all controllers of one store work with."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.owners, self.recorder = Owners(store), Recorder(store)


class Controller(abc.ABC):
    """One loop of the control plane."""

    name: str
    """As the source of events, such as `replicaset-controller`."""

    resource: str
    """Of its own objects."""

    watches: frozenset[str] = frozenset()
    """Resources whose events concern it; empty for all."""

    def __init__(self, hands: Hands) -> None:
        self.store, self.clock, self.owners, self._recorder = hands.store, hands.clock, hands.owners, hands.recorder

    @abc.abstractmethod
    def keys(self, event: Event) -> list[tuple[str, str]]:
        """Namespace and name of the objects of its own that an event concerns."""

    @abc.abstractmethod
    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one object to what it declares; seconds until it must be looked at again, or None. Raises Retry."""

    @contextlib.contextmanager
    def changing(self, seen: Obj) -> Iterator[Obj]:
        """The object as it is now, written when the block ends (by nobody else meanwhile: no await), unless it is gone.
        Its metadata and status may be changed; other parts are replaced."""
        now = self.store.get(self.resource, *key_of(seen)) or seen
        draft = {**now, "metadata": clone(now["metadata"]), "status": clone(now.get("status") or {})}
        yield draft
        self.store.mutate(self.resource, *key_of(seen), lambda obj: obj.update(draft))

    def say(self, about: Obj, reason: str, message: str) -> None:
        """In an event on the object."""
        self._recorder.record("Normal", about, self.name, reason, message)

    def warn(self, about: Obj, reason: str, message: str) -> None:
        self._recorder.record("Warning", about, self.name, reason, message)


class Workload(Controller):
    """A controller of one kind, whose objects control others."""

    kind: str
    created, deleted = "Created pod: {pod}", "Deleted pod: {pod}"
    """The words of its events."""

    def keys(self, event: Event) -> list[tuple[str, str]]:
        if event.resource == self.resource:
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        return self.controlling(event.object, event.old)

    def controlling(self, *found: Obj | None) -> list[tuple[str, str]]:
        """The objects of its kind that control these."""
        named = ((obj, controller_of(obj)) for obj in found if obj is not None)
        return [
            (obj["metadata"]["namespace"], ref["name"]) for obj, ref in named if ref and ref["kind"] == self.kind
        ]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        obj = self.store.get(self.resource, namespace, name)
        return None if obj is None or is_deleting(obj) else await self.sync(obj)

    @abc.abstractmethod
    async def sync(self, obj: Obj) -> float | None:
        """As `reconcile`, for an object that is there to stay."""

    async def create_pods(self, owner: Obj, wanted: Sequence[Obj]) -> None:
        """Create all of them, and say so. Raises Retry at the first refusal, with the API's own words."""
        home = self.store.get("namespaces", "", owner["metadata"]["namespace"])
        if home is not None and is_deleting(home):
            return
        done, batch = 0, 1
        while done < len(wanted):
            answers = await asyncio.gather(*(self.submit("pods", pod) for pod in wanted[done : done + batch]))
            for answer in answers:
                if isinstance(answer, dict):
                    message = self.created.format(pod=name_of(answer), owner=name_of(owner))
                    self.say(owner, "SuccessfulCreate", message)
            for answer in answers:
                if isinstance(answer, Exception):
                    self.warn(owner, "FailedCreate", f"Error creating: {answer}")
                    raise Retry(str(answer))
            done, batch = done + batch, batch * 2

    def submit(self, resource: str, obj: Obj) -> asyncio.Future[Any]:
        """Create an object through the API: what was stored, or the exception that refused it."""
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.store.submit(resource, obj, USER, lambda outcome: None if told.done() else told.set_result(outcome))
        return told

    def delete_pod(self, owner: Obj, pod: Obj) -> None:
        """Delete one pod with its own grace period, if that has not begun, and say so."""
        if not is_deleting(pod):
            self.store.delete("pods", *key_of(pod))
            self.say(owner, "SuccessfulDelete", self.deleted.format(pod=name_of(pod), owner=name_of(owner)))

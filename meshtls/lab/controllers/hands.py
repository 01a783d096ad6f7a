"""What every controller works with: the store, the owners' index, time, chance, and the two ways to make something
known."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.clock import Clock
from meshtls.lab.controllers.objects import SAFE, Obj
from meshtls.lab.controllers.owners import Owners
from meshtls.lab.controllers.queue import Key
from meshtls.lab.controllers.recorder import Recorder

CreatePod = Callable[[Obj], Awaitable[Obj]]
"""Creates a pod as a client would, admission and injection included. A refusal is an exception whose text is the
API's message."""


class Hands:
    """Shared by all controllers of one store."""

    def __init__(self, store: Store, create_pod: CreatePod, clock: Clock, chance: random.Random) -> None:
        self.store = store
        self.create_pod = create_pod
        self.clock = clock
        self.chance = chance
        self.owners = Owners(store)
        self.recorder = Recorder(store, clock)

    def suffix(self) -> str:
        """Five characters that end a generated name."""
        return "".join(self.chance.choices(SAFE, k=5))


class Controller(Protocol):
    """One loop of the control plane."""

    name: str
    """As the source of events, such as `replicaset-controller`."""

    watches: frozenset[str]
    """Resources whose events concern it; empty for all."""

    def keys(self, event: Event) -> list[Key]:
        """Which objects of its own an event concerns."""

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one object to what it declares; seconds until it must be looked at again, or None. Raises Retry."""


def submitting(store: Store, user: str = "system:serviceaccount:kube-system:replicaset-controller") -> CreatePod:
    """A `create_pod` that goes through the store's API: defaults, admission, injection, webhooks."""

    async def create(pod: Obj) -> Obj:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        store.submit("pods", pod, user, lambda outcome: None if answer.done() else answer.set_result(outcome))
        outcome = await answer
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return create

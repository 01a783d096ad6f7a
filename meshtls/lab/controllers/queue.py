"""One controller's work: keys to be looked at, each by one task at a time.

Laws:
  1. A key added many times before it is looked at is looked at once; added while it is looked at, once more afterwards.
  2. `reconcile` returns the seconds after which it wants to see the key again (None: when something happens).
  3. `Retry` is the expected failure (a refused pod): looked at again after 0.1 s, doubled each time up to 10 s. Any
     other exception is a fault of ours: it is logged, and treated in the same way, so that one key never stops the
     others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from meshtls.lab.api.store import StoreError
from meshtls.lab.controllers.clock import Clock, Timer

Key = tuple[str, str]
"""Namespace and name."""

Reconcile = Callable[[str, str], Awaitable[float | None]]

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 10.0

log = logging.getLogger(__name__)


class Retry(Exception):
    """The world refused; try this key again later."""


class Queue:
    """The keys of one controller that wait, run, or have a timer."""

    def __init__(self, name: str, reconcile: Reconcile, clock: Clock) -> None:
        self.name = name
        self._reconcile = reconcile
        self._clock = clock
        self._dirty: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._timers: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key) -> None:
        """Look at this key soon."""
        if self._closed:
            return
        self._dirty.add(key)
        if key not in self._running:
            self._running[key] = asyncio.get_running_loop().create_task(
                self._run(key), name=f"{self.name} {'/'.join(key)}"
            )

    async def idle(self) -> bool:
        """Return when nothing runs; True if something had to be waited for. Timers do not count."""
        waited = bool(self._running)
        while self._running:
            await asyncio.wait(tuple(self._running.values()))
        return waited

    async def close(self) -> None:
        """End timers and running tasks."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        try:
            again: float | None = None
            while key in self._dirty and not self._closed:
                self._dirty.discard(key)
                again = await self._attempt(key)
            self._look_again(key, again)
        finally:
            del self._running[key]

    async def _attempt(self, key: Key) -> float | None:
        try:
            again = await self._reconcile(*key)
        except (Retry, StoreError) as refusal:
            log.debug("%s %s: %s", self.name, "/".join(key), refusal)
        except Exception:
            log.exception("%s failed on %s", self.name, "/".join(key))
        else:
            self._failures.pop(key, None)
            return again
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 20), LAST_RETRY_S)

    def _look_again(self, key: Key, delay_s: float | None) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if delay_s is not None and not self._closed:
            self._timers[key] = self._clock.call_later(delay_s, lambda: self._timer_fired(key))

    def _timer_fired(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

"""The controllers' work: keys to be looked at, each by one task at a time.

Laws:
  1. A key added many times before it is looked at is looked at once; added while it is looked at, once more afterwards.
  2. `reconcile` returns the seconds after which it wants to see the key again (None: when something happens).
  3. `Retry` and what the store refuses are the expected failures (a refused pod): looked at again after 0.1 s, doubled
     each time up to 10 s. Any other exception is a fault of ours: it is logged, and treated in the same way, so that
     one key never stops the others.
"""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable

from meshtls.lab.api.store import StoreError

Key = tuple[str, ...]
"""A controller's name, and the namespace and name of an object of its own."""

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 10.0

log = logging.getLogger(__name__)


class Retry(Exception):
    """The world refused; try this key again later."""


class Clock:
    """The machine's own time and the running event loop's timers."""

    def now(self) -> datetime.datetime:
        """The time, with UTC as its zone."""
        return datetime.datetime.now(datetime.UTC)

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Callable[[], object]:
        """Call once, `delay_s` seconds from now, in the event loop's thread. What comes back takes it back."""
        return asyncio.get_running_loop().call_later(max(delay_s, 0), call).cancel


class Queue:
    """The keys that wait, run, or have a timer."""

    def __init__(self, reconcile: Callable[..., Awaitable[float | None]], clock: Clock) -> None:
        self._reconcile = reconcile
        self._clock = clock
        self._dirty: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._timers: dict[Key, Callable[[], object]] = {}
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key) -> None:
        """Look at this key soon."""
        if self._closed:
            return
        self._dirty.add(key)
        if key not in self._running:
            self._running[key] = asyncio.get_running_loop().create_task(self._run(key), name="/".join(key))

    async def close(self) -> None:
        """End timers and running tasks."""
        self._closed = True
        for cancel in self._timers.values():
            cancel()
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        again: float | None = None
        try:
            while key in self._dirty:
                self._dirty.discard(key)
                again = await self._attempt(key)
        finally:
            del self._running[key]
        if cancel := self._timers.pop(key, None):
            cancel()
        if again is not None and not self._closed:
            self._timers[key] = self._clock.call_later(again, lambda: self.add(key))

    async def _attempt(self, key: Key) -> float | None:
        try:
            again = await self._reconcile(*key)
        except (Retry, StoreError) as refusal:
            log.debug("%s: %s", "/".join(key), refusal)
        except Exception:
            log.exception("%s failed", "/".join(key))
        else:
            self._failures.pop(key, None)
            return again
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 20), LAST_RETRY_S)

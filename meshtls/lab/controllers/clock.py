"""Time as the controllers see it: one object that says what time it is and calls back later, so that tests turn it by
hand."""

import asyncio
import datetime
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the controllers need of time."""

    def now(self) -> datetime.datetime:
        """The time, with UTC as its zone."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once, `delay_s` seconds from now, in the event loop's thread."""


class SystemClock:
    """The machine's own time and the running event loop's timers."""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(delay_s, 0), call)


def text(when: datetime.datetime) -> str:
    """A time as the API writes it: UTC, whole seconds."""
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(written: str) -> datetime.datetime:
    """The API's time, with or without fractions of a second."""
    return datetime.datetime.fromisoformat(written.replace("Z", "+00:00"))

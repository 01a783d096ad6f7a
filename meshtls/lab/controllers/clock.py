"""Time as the controllers see it. Tests put in a clock that they turn by hand."""

import asyncio
import datetime
from collections.abc import Callable


class Clock:
    """The machine's own time and the running event loop's timers."""

    def now(self) -> datetime.datetime:
        """The time, with UTC as its zone."""
        return datetime.datetime.now(datetime.UTC)

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Callable[[], object]:
        """Call once, `delay_s` seconds from now, in the event loop's thread. What comes back takes it back."""
        return asyncio.get_running_loop().call_later(max(delay_s, 0), call).cancel


def text(when: datetime.datetime) -> str:
    """A time as the API writes it: UTC, whole seconds."""
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(written: str) -> datetime.datetime:
    """The API's time, with or without fractions of a second."""
    return datetime.datetime.fromisoformat(written.replace("Z", "+00:00"))

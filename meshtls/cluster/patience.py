"""Says that an answer is awaited, while it is: nobody should sit before a silent screen and wonder.

    after AFTER_S seconds without an answer     "no answer from SERVER for 3 s (get Pod shop/cart): connection refused; still trying"
    every AGAIN_S seconds from then on          the same
    once an answer has come                     "SERVER answers again"

Only the request that has waited longest is told of. How long is waited at all is the transport's to decide.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_S, AGAIN_S = 3.0, 15.0


class Patience:
    """Watches the requests to one server from a thread of its own, which begins with the first. `say` gets each line."""

    def __init__(self, server: str, say: Callable[[str], None], after_s: float = AFTER_S, again_s: float = AGAIN_S) -> None:
        self._server, self._say, self._after_s, self._again_s = server, say, after_s, again_s
        self._changed = threading.Condition()
        self._waiting: dict[object, tuple[float, str]] = {}
        self._why, self._said, self._closed = "", 0.0, False
        self._thread: threading.Thread | None = None

    @contextmanager
    def asking(self, doing: str) -> Iterator[None]:
        """Within, an answer to this question is awaited."""
        question = object()
        with self._changed:
            self._waiting[question] = (time.monotonic(), doing)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="patience", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.pop(question, None)

    def failed(self, why: str) -> None:
        """An attempt got no answer, and there will be another."""
        with self._changed:
            self._why = why

    def answered(self) -> None:
        """The server has answered something."""
        with self._changed:
            told, self._said, self._why = self._said, 0.0, ""
        if told:
            self._say(f"{self._server} answers again")

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._waiting:
                    self._changed.wait()
                    continue
                began, doing = next(iter(self._waiting.values()))
                now = time.monotonic()
                due = max(began + self._after_s, self._said + self._again_s if self._said else 0.0)
                if now < due:
                    self._changed.wait(due - now)
                    continue
                self._said = now
                why = f": {self._why}" if self._why else ""
                self._say(f"no answer from {self._server} for {now - began:.0f} s ({doing}{why}); still trying")

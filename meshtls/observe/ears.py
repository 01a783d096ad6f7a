"""Listens to many proxies' logs at once: one thread a proxy, one queue of lines.

A log that ends is followed again from the last line heard, so that a restarted proxy or a lost connection leaves no gap;
a proxy whose pod is gone has said everything. Lines carry the kubelet's time of writing, by which repeated ones are
dropped. A proxy that cannot be heard is in `deaf` with the reason, and whoever asks must not take its silence for good.
"""

import queue
import threading
import time
from collections.abc import Iterable
from typing import Self

import msgspec

from meshtls.cluster.client import Client
from meshtls.errors import ClusterError, MeshtlsError, NotFound

LIMIT = 256
_RETRY_S = 0.5


class Proxy(msgspec.Struct, frozen=True, order=True):
    """A container whose log tells of arrivals: a sidecar, or a ztunnel."""

    namespace: str
    pod: str
    container: str = "istio-proxy"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


class _Place:
    """How far a log has been heard. Lines that were written together carry the same time, so they are counted too."""

    def __init__(self) -> None:
        self.last, self._at_last = "", 0
        self._skip_until, self._skip = "", 0

    def resume(self) -> None:
        """The log is read again from about here: what was heard comes once more."""
        self._skip_until, self._skip = self.last, self._at_last

    def new(self, written: str) -> bool:
        """Whether a line of this time has not been heard yet."""
        if written < self._skip_until:
            return False
        if written == self._skip_until and self._skip:
            self._skip -= 1
            return False
        if written == self.last:
            self._at_last += 1
        elif written > self.last:
            self.last, self._at_last = written, 1
        return True


class Ears:
    """Follows proxies; more can be added while it listens. At most `limit` at once, the others are deaf with that reason."""

    def __init__(self, client: Client, since_time: str, limit: int = LIMIT) -> None:
        self._client, self._since, self._limit = client.branch(), since_time, limit
        self._threads: dict[Proxy, threading.Thread] = {}
        self._closing = threading.Event()
        self._opened: dict[Proxy, threading.Event] = {}
        self.lines: queue.SimpleQueue[tuple[Proxy, str]] = queue.SimpleQueue()
        self.deaf: dict[Proxy, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._client.close()
        for thread in self._threads.values():
            thread.join(5.0)

    def follow(self, proxies: Iterable[Proxy]) -> None:
        """Begin with those that are not followed yet."""
        for proxy in proxies:
            if proxy in self._threads:
                continue
            if len(self._threads) >= self._limit:
                self.deaf[proxy] = f"more than {self._limit} proxies to follow at once"
                continue
            self._opened[proxy] = threading.Event()
            thread = threading.Thread(target=self._listen, args=(proxy,), name=f"log {proxy}", daemon=True)
            self._threads[proxy] = thread
            thread.start()

    def ready(self, timeout_s: float) -> None:
        """Wait until every log has been opened; those that were not are deaf for now, with that reason."""
        deadline = time.monotonic() + timeout_s
        for proxy, opened in self._opened.items():
            if not opened.wait(max(0.0, deadline - time.monotonic())):
                self.deaf.setdefault(proxy, f"its log was not opened within {timeout_s:g} s")

    def heard(self, timeout_s: float) -> list[tuple[Proxy, str]]:
        """The lines that came, at least one unless `timeout_s` passes without any."""
        found: list[tuple[Proxy, str]] = []
        try:
            found.append(self.lines.get(timeout=max(timeout_s, 0.001)))
            while True:
                found.append(self.lines.get_nowait())
        except queue.Empty:
            return found

    def _listen(self, proxy: Proxy) -> None:
        since, place = self._since, _Place()
        while not self._closing.is_set():
            place.resume()
            try:
                for line in self._client.logs(
                    proxy.namespace, proxy.pod, proxy.container, follow=True, since_time=since, timestamps=True,
                    opened=lambda: self._hear(proxy),
                ):
                    written, _, text = line.partition(" ")
                    if place.new(written):
                        self.lines.put((proxy, text))
            except NotFound:
                self._opened[proxy].set()
                self.deaf.pop(proxy, None)
                return
            except (ClusterError, MeshtlsError) as error:
                if not self._closing.is_set():
                    self.deaf[proxy] = error.message
                    self._opened[proxy].set()
            except RuntimeError:
                # httpx refuses to send through a client that is closed
                return
            since = place.last[:19] + "Z" if place.last else since
            self._closing.wait(_RETRY_S)

    def _hear(self, proxy: Proxy) -> None:
        self.deaf.pop(proxy, None)
        self._opened[proxy].set()

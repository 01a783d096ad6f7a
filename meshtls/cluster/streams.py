"""Answers that stay open: followed logs and watches.

A `Stream` ends when the server ends it, when its time is over, or when another thread calls `stop()`; all three look
alike to the reader, who just gets no more lines. Only a connection that breaks by itself is an error. A reader that
waits in the kernel is woken by shutting the socket down under it.

`watch` is a loop over streams that never loses a change: it remembers the last version seen, goes on from there, and
where the server has forgotten that version (410) it lists again and gives the differences.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Self

import httpx
import msgspec

from meshtls.cluster import answers
from meshtls.errors import ServerFault

LINE_LIMIT = 64 * 1024
# connections shorter than this are not renewed at once, or a server that always hangs up would be hammered
_SHORT_S = 0.2
_EVENT_LIMIT = 4 * 1024 * 1024
Listed = tuple[list[dict[str, Any]], str]


class Stream:
    """The body of one open answer. `left_s` is how long it may last (None: until the server ends it)."""

    def __init__(self, response: httpx.Response, left_s: float | None) -> None:
        self._response = response
        self._stopped = threading.Event()
        self._timer = threading.Timer(max(left_s, 0.0), self.stop) if left_s is not None else None

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        """End it from any thread."""
        self._stopped.set()
        network = self._response.extensions.get("network_stream")
        sock = network.get_extra_info("socket") if network is not None else None
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                # not SSLSocket.shutdown: it would take the TLS object away from the thread that reads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def lines(self, limit: int = LINE_LIMIT) -> Iterator[str]:
        """Lines without their ends, each cut at `limit` bytes; undecodable bytes are replaced."""
        kept = b""
        try:
            for chunk in self._response.iter_bytes():
                *whole, kept = (kept + chunk).split(b"\n")
                for line in whole:
                    yield line[:limit].rstrip(b"\r").decode(errors="replace")
                # a line beyond the limit is kept as its beginning only, until its end comes
                kept = kept[: limit + 1]
                if self._stopped.is_set():
                    return
        except httpx.TransportError:
            if not self._stopped.is_set():
                raise
            return
        if kept:
            yield kept[:limit].decode(errors="replace")


def watch(
    listing: Callable[[], Listed],
    opening: Callable[[str, float], AbstractContextManager[Stream]],
    version: str,
    timeout_s: float | None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a kind; see Client.watch. `opening(version, seconds)` opens one connection."""
    deadline = None if timeout_s is None else clock() + timeout_s
    known: dict[tuple[str, str], dict[str, Any]] = {}
    while True:
        if not version:
            items, version = listing()
            yield from _differences(known, items)
        left = 300.0 if deadline is None else deadline - clock()
        if left <= 0:
            return
        try:
            began = clock()
            # a connection that breaks is one that ended: the next one goes on from the same version
            with opening(version, left) as stream, suppress(httpx.TransportError):
                for line in stream.lines(_EVENT_LIMIT):
                    kind, obj = _event(line)
                    version = obj["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        _remember(known, kind, obj)
                        yield kind, obj
            if clock() - began < _SHORT_S:
                pause(_SHORT_S)
        except ServerFault as error:
            if error.status != 410:
                raise
            version = ""


def _event(line: str) -> tuple[str, dict[str, Any]]:
    try:
        event = msgspec.json.decode(line, type=dict[str, Any])
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise answers.fault(int(obj.get("code") or 500), msgspec.json.encode(obj), "watch")
        obj["metadata"]["resourceVersion"]
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise ServerFault("watch: the server sent what is no event", "run again") from error
    return kind, obj


def _key(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _remember(known: dict[tuple[str, str], dict[str, Any]], kind: str, obj: dict[str, Any]) -> None:
    if kind == "DELETED":
        known.pop(_key(obj), None)
    else:
        known[_key(obj)] = obj["metadata"]


def _differences(
    known: dict[tuple[str, str], dict[str, Any]], items: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events that turn what is known into what was listed; `known` follows."""
    listed = {_key(item): item for item in items}
    for key in [key for key in known if key not in listed or known[key]["uid"] != listed[key]["metadata"]["uid"]]:
        yield "DELETED", {"metadata": known.pop(key)}
    for key, item in listed.items():
        before = known.get(key)
        known[key] = item["metadata"]
        if before is None:
            yield "ADDED", item
        elif before["resourceVersion"] != item["metadata"]["resourceVersion"]:
            yield "MODIFIED", item

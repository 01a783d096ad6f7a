"""Watches: what happened after a version, then what happens, as one JSON line an event.

Laws:
  1. Version "" or "0" begins with an ADDED for everything there is; any other begins after that version, or with an
     ERROR 410 event when the history is shorter.
  2. An object that begins to match the selectors is ADDED, one that ceases to is DELETED, whatever it was in the store.
  3. A client that does not read is cut off once its queue is full: it lists again.
"""
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec

from meshtls.lab.api import status
from meshtls.lab.api.select import Match
from meshtls.lab.api.store import Event, Gone, Store

Object = dict[str, Any]
QUEUE = 10_000
BOOKMARK_EVERY_S = 60.0


class Watch(msgspec.Struct, frozen=True):
    """One watch's wishes. `version` None: begin with what there is. `shape` turns an object into what is sent."""

    resource: str
    namespace: str
    matches: Match
    shape: Callable[[Object], Object]
    version: int | None
    timeout_s: float
    bookmarks: bool
    initial_end: bool
    kind: str
    api_version: str


def version_of(text: str) -> int:
    """Raises ApiError 500, as the API server does for a resourceVersion that is no number."""
    if not text.isascii() or not text.isdigit():
        raise status.ApiError(500, "",
                              f'resourceVersion: Invalid value: {json.dumps(text)}: strconv.ParseUint: parsing '
                              f'{json.dumps(text)}: '
                              "invalid syntax")
    return int(text)


async def lines(store: Store, watch: Watch) -> AsyncIterator[bytes]:
    """The stream of a watch; ends after its timeout or when the reader lags too far behind."""
    queue: asyncio.Queue[Event] = asyncio.Queue()

    def heard(event: Event) -> None:
        if event.resource == watch.resource:
            queue.put_nowait(event)
    unsubscribe = store.subscribe(heard)
    loop = asyncio.get_running_loop()
    end = loop.time() + watch.timeout_s
    try:
        try:
            first = list(_first(store, watch))
        except Gone as error:
            yield _line("ERROR", status.ApiError(410, "Expired", str(error)).status())
            return
        last = store.version
        if first:
            yield b"".join(first)
        while (left := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left, BOOKMARK_EVERY_S) if watch.bookmarks else left):
                    found = [await queue.get()]
            except TimeoutError:
                if watch.bookmarks and loop.time() < end:
                    yield _line("BOOKMARK", _bookmark(watch, store.version))
                continue
            if queue.qsize() > QUEUE:
                return
            while not queue.empty() and len(found) < 500:
                found.append(queue.get_nowait())
            told = b"".join(_told(watch, [event for event in found if event.version > last]))
            if told:
                yield told
    finally:
        unsubscribe()


def _first(store: Store, watch: Watch) -> Iterable[bytes]:
    if watch.version is not None:
        yield from _told(watch, store.since(watch.resource, watch.version))
        return
    for obj in store.list(watch.resource, watch.namespace):
        if watch.matches(obj):
            yield _line("ADDED", watch.shape(obj))
    if watch.initial_end:
        mark = _bookmark(watch, store.version)
        mark["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
        yield _line("BOOKMARK", mark)


def _told(watch: Watch, events: Iterable[Event]) -> Iterable[bytes]:
    for event in events:
        if watch.namespace and event.object["metadata"].get("namespace") != watch.namespace:
            continue
        before = event.old is not None and watch.matches(event.old)
        after = event.type != "DELETED" and watch.matches(event.object)
        if after:
            yield _line("MODIFIED" if before else "ADDED", watch.shape(event.object))
        elif before:
            yield _line("DELETED", watch.shape(event.object if event.type == "DELETED" else _as_it_was(event)))


def _as_it_was(event: Event) -> Object:
    """An object that ceased to match, as it was when it last did, with the version of the change."""
    old = event.old or event.object
    return {**old, "metadata": {**old["metadata"], "resourceVersion": event.object["metadata"]["resourceVersion"]}}


def _bookmark(watch: Watch, version: int) -> Object:
    return {"kind": watch.kind, "apiVersion": watch.api_version,
            "metadata": {"resourceVersion": str(version)}}


def _line(kind: str, obj: Object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"

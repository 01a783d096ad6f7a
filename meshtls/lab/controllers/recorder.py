"""Events as kubectl shows them. The same thing said again raises a count; what is older than an hour goes, as on a
real server."""

import datetime
from collections import deque

from meshtls.lab.api.store import Store
from meshtls.lab.controllers.clock import Clock, text
from meshtls.lab.controllers.objects import Obj, is_deleting

KEPT = datetime.timedelta(hours=1)
LONGEST = 1024
"""Characters of a message, as the API allows."""


class Recorder:
    """Writes core/v1 Events."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._said: dict[tuple[str, ...], str] = {}
        self._written: deque[tuple[datetime.datetime, str, tuple[str, ...]]] = deque()

    def normal(self, about: Obj, source: str, reason: str, message: str) -> None:
        self._record(about, source, "Normal", reason, message)

    def warning(self, about: Obj, source: str, reason: str, message: str) -> None:
        self._record(about, source, "Warning", reason, message)

    def _record(self, about: Obj, source: str, kind: str, reason: str, message: str) -> None:
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        home = self._store.get("namespaces", "", namespace)
        if home is not None and is_deleting(home):
            return
        now = self._clock.now()
        self._forget(now)
        message = message[:LONGEST]
        said = (namespace, metadata.get("uid", ""), source, reason, message)
        name = self._said.get(said)
        if (
            name is not None
            and self._store.mutate("events", namespace, name, lambda event: _again(event, text(now))) is not None
        ):
            return
        name = f"{metadata['name']}.{self._store.version + 1:016x}"
        involved = {
            "kind": about["kind"],
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "apiVersion": about["apiVersion"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        self._store.create(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {key: value for key, value in involved.items() if value},
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": source},
                "reportingComponent": source,
                "reportingInstance": "",
                "count": 1,
                "firstTimestamp": text(now),
                "lastTimestamp": text(now),
                "eventTime": None,
            },
        )
        self._said[said] = name
        self._written.append((now, name, said))

    def _forget(self, now: datetime.datetime) -> None:
        while self._written and now - self._written[0][0] > KEPT:
            _, name, said = self._written.popleft()
            self._said.pop(said, None)
            self._store.remove("events", said[0], name)


def _again(event: Obj, now: str) -> None:
    event["count"] = event.get("count", 1) + 1
    event["lastTimestamp"] = now

"""Events as kubectl shows them. The same thing said again raises a count; what is older than an hour goes, as on a
real server."""

import datetime

from meshtls.lab.api.store import Store
from meshtls.lab.controllers.objects import Obj, is_deleting, parse

KEPT = datetime.timedelta(hours=1)
LONGEST = 1024
"""Characters of a message, as the API allows."""


class Recorder:
    """Writes core/v1 Events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._said: dict[tuple[str, ...], tuple[str, str]] = {}
        """What was said, oldest first: the event's name, and when."""

    def record(self, kind: str, about: Obj, source: str, reason: str, message: str, field: str = "") -> None:
        """`kind` is Normal or Warning; `field` the part of the object that the event is about, such as spec.containers{app}."""
        metadata, now = about["metadata"], self._store.now()
        namespace = metadata.get("namespace") or "default"
        home = self._store.get("namespaces", "", namespace)
        if home is not None and is_deleting(home):
            return

        def again(event: Obj) -> None:
            event.update(count=event.get("count", 1) + 1, lastTimestamp=now)

        self._forget(parse(now))
        message = message[:LONGEST]
        said = (namespace, metadata.get("uid", ""), field, source, reason, message)
        known, _ = self._said.pop(said, ("", ""))
        if known and self._store.mutate("events", namespace, known, again) is not None:
            self._said[said] = known, now
            return
        name = f"{metadata['name']}.{self._store.version + 1:016x}"
        self._said[said] = name, now
        keys = ("namespace", "name", "uid", "resourceVersion")
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"]} | {k: metadata[k] for k in keys if metadata.get(k)}
        if field:
            involved["fieldPath"] = field
        self._store.create(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": source},
                "reportingComponent": source,
                "reportingInstance": "",
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "eventTime": None,
            },
        )

    def _forget(self, now: datetime.datetime) -> None:
        while self._said:
            said, (name, when) = next(iter(self._said.items()))
            if now - parse(when) <= KEPT:
                return
            del self._said[said]
            self._store.remove("events", said[0], name)

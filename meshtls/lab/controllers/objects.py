"""Reading and writing parts of Kubernetes objects that every controller needs. Pure."""

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

Obj = dict[str, Any]

SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


def key_of(obj: Obj) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def is_deleting(obj: Obj) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def status_of(obj: Obj) -> Obj:
    return obj.get("status") or {}


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference of the object's managing controller."""
    return next((ref for ref in obj["metadata"].get("ownerReferences") or () if ref.get("controller")), None)


def owner_reference(owner: Obj) -> Obj:
    """What a controlled object says of its owner."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child(owner: Obj, api_version: str, kind: str, template: Obj | None = None, **name: str) -> Obj:
    """The beginning of an object that `owner` controls, with the labels and annotations that a template has. `name` is
    its name or generateName."""
    given = (template or {}).get("metadata") or {}
    metadata = {
        **name,
        "namespace": owner["metadata"]["namespace"],
        **{key: dict(given[key]) for key in ("labels", "annotations") if given.get(key)},
        "ownerReferences": [owner_reference(owner)],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def text(when: datetime.datetime) -> str:
    """A time as the API writes it: UTC, whole seconds."""
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(written: str) -> datetime.datetime:
    """The API's time, with or without fractions of a second."""
    return datetime.datetime.fromisoformat(written.replace("Z", "+00:00"))


def says_new(obj: Obj, old: Obj | None) -> bool:
    """Whether a write changed more than the status: what a controller wrote about its own object concerns it no
    further."""
    return old is None or _declared(obj) != _declared(old)


def _declared(obj: Obj) -> Obj:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**obj, "metadata": metadata, "status": None}


def surplus(found: Sequence[Obj], limit: int, age: Callable[[Obj], Any]) -> list[Obj]:
    """Those that a history of `limit` has no room for, oldest first."""
    return sorted(found, key=age)[: max(len(found) - limit, 0)]


def share(value: int | str, total: int, *, up: bool) -> int:
    """An int-or-percent of `total`, rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        part = total * int(value[:-1]) / 100
        return math.ceil(part) if up else math.floor(part)
    return int(value)


def digest(value: Any, length: int = 10) -> str:
    """A short name-safe hash of a JSON value."""
    hashed = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=length)
    return "".join(SAFE[byte % len(SAFE)] for byte in hashed.digest())


def set_counts(status: Obj, counts: Obj, always: Collection[str] = ()) -> None:
    """Write counts into a status. A zero is left out, as by the API, but for the fields that are `always` there."""
    for field, count in counts.items():
        if count or field in always:
            status[field] = count
        else:
            status.pop(field, None)

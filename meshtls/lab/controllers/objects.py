"""Reading and writing parts of Kubernetes objects that every controller needs. Pure."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

Obj = dict[str, Any]

SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


def key_of(obj: Obj) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def is_deleting(obj: Obj) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


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


def says_new(obj: Obj, old: Obj | None) -> bool:
    """Whether a write changed more than the status: what a controller wrote about its own object concerns it no
    further."""
    return old is None or _declared(obj) != _declared(old)


def _declared(obj: Obj) -> Obj:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**obj, "metadata": metadata, "status": None}


def matches(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector on labels. An empty one matches everything, none at all nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(requirement_holds(need, labels) for need in selector.get("matchExpressions") or ())


def requirement_holds(need: Obj, labels: Mapping[str, str]) -> bool:
    """One expression of a label or node selector: In, NotIn, Exists, DoesNotExist, Gt, Lt."""
    value, values = labels.get(need["key"]), need.get("values") or []
    match need["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                have, bound = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return have > bound if operator == "Gt" else have < bound
    return False


def share(value: int | str | None, total: int, *, up: bool, default: int | str = "25%") -> int:
    """An int-or-percent of `total`, rounded up or down."""
    value = default if value is None else value
    if isinstance(value, str) and value.endswith("%"):
        part = total * int(value[:-1]) / 100
        return math.ceil(part) if up else math.floor(part)
    return int(value)


def digest(value: Any, length: int = 10) -> str:
    """A short name-safe hash of a JSON value."""
    number = int.from_bytes(hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).digest())
    letters = []
    for _ in range(length):
        number, place = divmod(number, len(SAFE))
        letters.append(SAFE[place])
    return "".join(letters)


def condition(obj: Obj, kind: str) -> Obj | None:
    """The status condition of that type."""
    return next((one for one in (obj.get("status") or {}).get("conditions") or () if one["type"] == kind), None)


def set_condition(status: Obj, kind: str, value: str, reason: str, message: str, now: str, **times: str) -> None:
    """Write a condition; lastTransitionTime changes only with its status. `times` are further time fields, such as
    lastUpdateTime."""
    conditions = status.setdefault("conditions", [])
    old = next((one for one in conditions if one["type"] == kind), None)
    since = old["lastTransitionTime"] if old and old["status"] == value else now
    new = {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since, **times}
    if old is None:
        conditions.append(new)
    else:
        conditions[conditions.index(old)] = new


def drop_condition(status: Obj, kind: str) -> None:
    if conditions := status.get("conditions"):
        status["conditions"] = [one for one in conditions if one["type"] != kind]

"""Who owns which field: managedFields, and server-side apply on top of them.

A field is a path of FieldsV1 elements: "f:spec", 'k:{"name":"app"}', "v:\\"x\\"". A set of fields is a set of such
paths. Laws (Kubernetes' server-side apply):
  1. An update gives its manager every field that it changed or added; all others lose those.
  2. An apply owns exactly the fields of its configuration; what it owned before, leaves out now and nobody else owns is
     removed.
  3. An apply that would change a field that another manager owns is a conflict, unless forced: then the other loses it.
"""
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from meshtls.lab.api import schema, status
from meshtls.lab.api.field import quote
from meshtls.lab.api.store import clone

Path = tuple[str, ...]
Fields = dict[Path, Any]
Object = dict[str, Any]

_UNTRACKED = {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
              "resourceVersion",
              "deletionTimestamp", "deletionGracePeriodSeconds"}
"""Metadata that nobody owns."""


def fields(node: dict[str, Any], obj: Object) -> Fields:
    """Every field of an object with its value (None for what only holds others)."""
    found: Fields = {}
    for key, value in obj.items():
        if key in ("apiVersion", "kind"):
            continue
        child = schema.resolve((node.get("properties") or {}).get(key, {}))
        if key == "metadata":
            value = {name: item for name, item in (value or {}).items() if name not in _UNTRACKED}
            if not value:
                continue
        _collect(child, value, (f"f:{key}",), found)
    return found


def _collect(node: dict[str, Any], value: Any, path: Path, found: Fields) -> None:
    if isinstance(value, dict) and value and not schema.is_atomic(node):
        inner = node.get("additionalProperties")
        if isinstance(inner, dict):
            found[path] = None
        for key, item in value.items():
            child = (node.get("properties") or {}).get(key) or (inner if isinstance(inner, dict) else {})
            _collect(schema.resolve(child), item, (*path, f"f:{key}"), found)
    elif isinstance(value, list) and not schema.is_atomic(node):
        keys, items = schema.merge_keys(node), schema.resolve(node.get("items") or {})
        for item in value:
            element = _element(keys, item)
            found[(*path, element)] = None
            if keys:
                _collect_item(items, item, (*path, element), found)
        if not value:
            found[path] = []
    else:
        found[path] = value


def _collect_item(node: dict[str, Any], item: Any, path: Path, found: Fields) -> None:
    if not isinstance(item, dict):
        return
    for key, value in item.items():
        _collect(schema.resolve((node.get("properties") or {}).get(key, {})), value, (*path, f"f:{key}"), found)


def _element(keys: list[str] | None, item: Any) -> str:
    if keys and isinstance(item, dict):
        mark = {key: item.get(key, schema.KEY_DEFAULTS.get(key)) for key in keys}
        held = {key: value for key, value in mark.items() if value is not None}
        return "k:" + msgspec.json.encode(held, order="sorted").decode()
    return "v:" + msgspec.json.encode(item).decode()


def encode(paths: set[Path]) -> Object:
    """A set of fields as FieldsV1; "." marks a field that is owned besides those inside it."""
    root: Object = {}
    ordered = sorted(paths)
    for path, following in zip(ordered, [*ordered[1:], ()], strict=True):
        held = root
        for element in path:
            held = held.setdefault(element, {})
        if following[:len(path)] == path:
            held["."] = {}
    return root


def decode(node: Object, path: Path = ()) -> Iterator[Path]:
    for key, child in node.items():
        if key == ".":
            yield path
        elif not child:
            yield (*path, key)
        else:
            yield from decode(child, (*path, key))


class Manager:
    """One entry of managedFields."""

    def __init__(self, name: str, operation: str, api_version: str, subresource: str, paths: set[Path],
                 time: str) -> None:
        self.name, self.operation, self.api_version, self.subresource = name, operation, api_version, subresource
        self.paths, self.time = paths, time

    @classmethod
    def of(cls, entry: Object) -> "Manager":
        return cls(entry.get("manager", ""), entry.get("operation", "Update"), entry.get("apiVersion", ""),
                   entry.get("subresource", ""),
                   set(decode(entry.get("fieldsV1") or {})), entry.get("time", ""))

    def same(self, other: "Manager") -> bool:
        return (self.name, self.operation, self.api_version, self.subresource) == (
            other.name, other.operation, other.api_version, other.subresource)

    def entry(self) -> Object:
        found = {"manager": self.name, "operation": self.operation, "apiVersion": self.api_version, "time": self.time,
                 "fieldsType": "FieldsV1", "fieldsV1": encode(self.paths)}
        return {**found, "subresource": self.subresource} if self.subresource else found

    def __str__(self) -> str:
        text = quote(self.name)
        if self.subresource:
            text += f" with subresource {quote(self.subresource)}"
        return text if self.operation == "Apply" else f"{text} using {self.api_version} at {self.time}"


def shown(path: Path) -> str:
    """.spec.containers[name="app"].image"""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key,
                                   value in sorted(json.loads(rest).items())) + "]"
        else:
            text += f"[={rest}]"
    return text


def _managers(obj: Object) -> list[Manager]:
    return [Manager.of(entry) for entry in (obj.get("metadata") or {}).get("managedFields") or () if entry]


def _write(obj: Object, managers: list[Manager]) -> None:
    kept = sorted((manager for manager in managers if manager.paths),
                  key=lambda one: (one.operation, one.time, one.name, one.api_version, one.subresource))
    metadata = obj.setdefault("metadata", {})
    metadata.pop("managedFields", None)
    if kept:
        metadata["managedFields"] = [manager.entry() for manager in kept]


def updated(node: dict[str, Any], old: Object | None, new: Object, manager: str, api_version: str, subresource: str,
            now: str) -> None:
    """Write the owners into `new` after an update or create by `manager` (in place)."""
    given = (new.get("metadata") or {}).get("managedFields")
    held = _managers(new if given is not None else (old or {}))
    before, after = fields(node, old) if old else {}, fields(node, new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    if old is not None and not changed and len(before) == len(after):
        _write(new, held)
        return
    me = Manager(manager, "Update", api_version, subresource, set(), now)
    mine = next((one for one in held if one.same(me)), None)
    for one in held:
        if one is not mine:
            lost = {path for path in one.paths if path in changed and after[path] is not None}
            one.paths -= lost
        one.paths = {path for path in one.paths if path in after}
    if changed:
        if mine is None:
            mine = me
            held.append(mine)
        if not changed <= mine.paths:
            mine.time = now
        mine.paths |= changed
    _write(new, held)


def applied(node: dict[str, Any], live: Object | None, config: Object, manager: str, api_version: str, force: bool,
            now: str,
            subresource: str = "") -> Object:
    """The object after a server-side apply. Raises ApiError 409 naming every conflict."""
    wanted = {path for path, value in fields(node, config).items() if value is not None or path[-1][:2] in ("k:", "v:")}
    base = clone(live) if live is not None else {}
    held = _managers(base)
    me = Manager(manager, "Apply", api_version, subresource, wanted, now)
    mine = next((one for one in held if one.same(me)), None)
    others = [one for one in held if one is not mine]
    result = _merged(schema.resolve(node), base, config)
    if mine is not None:
        owned = set().union(*(one.paths for one in others)) if others else set()
        for path in sorted(mine.paths - wanted, key=len, reverse=True):
            if not any(other[:len(path)] == path for other in owned | wanted):
                _remove(result, path, schema.resolve(node))
    before, after = fields(node, live or {}), fields(node, result)
    changed = {path for path, value in after.items() if value is not None and before.get(path, _NOTHING) != value}
    clashes = [(one, sorted(one.paths & changed)) for one in others if one.paths & changed]
    if clashes and not force:
        raise _conflict(clashes)
    for one in others:
        one.paths = {path for path in one.paths if path not in changed and path in after}
    if mine is not None and mine.paths == wanted:
        me.time = mine.time
    _write(result, [*others, me])
    return result


_NOTHING = object()


def _conflict(clashes: list[tuple[Manager, list[Path]]]) -> status.ApiError:
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {one}", "field": shown(path)}
              for one, paths in clashes for path in paths]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        told = [line for one, paths in sorted(clashes, key=lambda clash: str(clash[0]))
                for line in (f"conflicts with {one}:", *(f"- {shown(path)}" for path in paths))]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(told)
    return status.ApiError(409, "Conflict", message, details={"causes": causes})


def _merged(node: dict[str, Any], base: Any, config: Any) -> Any:
    if isinstance(config, dict) and isinstance(base, dict) and not schema.is_atomic(node):
        inner = node.get("additionalProperties")
        found = dict(base)
        for key, value in config.items():
            child = schema.resolve((node.get("properties") or {}).get(key)
                                   or (inner if isinstance(inner, dict) else {}))
            found[key] = _merged(child, base[key], value) if key in base else clone(value)
        return found
    if isinstance(config, list) and isinstance(base, list) and not schema.is_atomic(node):
        keys, items = schema.merge_keys(node), schema.resolve(node.get("items") or {})
        held = {_element(keys, item): item for item in base}
        given = {_element(keys, item): item for item in config}
        merged = {mark: _merged(items, held[mark], item) if mark in held and keys else clone(item)
                  for mark, item in given.items()}
        return [merged.pop(mark, item) for mark, item in held.items()] + list(merged.values())
    return clone(config)


def _remove(obj: Any, path: Path, node: dict[str, Any]) -> None:
    """Take one field out, and what it leaves empty."""
    for place, element in enumerate(path):
        last = place == len(path) - 1
        kind, _, rest = element.partition(":")
        if kind == "f":
            if not isinstance(obj, dict) or rest not in obj:
                return
            inner = node.get("additionalProperties")
            child = schema.resolve((node.get("properties") or {}).get(rest)
                                   or (inner if isinstance(inner, dict) else {}))
            if last:
                del obj[rest]
                return
            _remove(obj[rest], path[place + 1:], child)
            if obj[rest] in ({}, []) and "x-model" not in child:
                del obj[rest]
            return
        keys = schema.merge_keys(node)
        at = next((at for at, item in enumerate(obj) if _element(keys, item) == element),
                  None) if isinstance(obj, list) else None
        if at is None:
            return
        if last:
            del obj[at]
            return
        node, obj = schema.resolve(node.get("items") or {}), obj[at]

"""Who owns which field: managedFields, and server-side apply on top of them.

A field is a path of FieldsV1 elements: "f:spec", 'k:{"name":"app"}', "v:\\"x\\"". A set of fields is a set of such
paths. Laws (Kubernetes' server-side apply):
  1. An update gives its manager every field that it changed or added; all others lose those.
  2. An apply owns exactly the fields of its configuration; what it owned before, leaves out now and nobody else owns is
     removed.
  3. An object whose owners were taken off has none until the next apply; all that is there belongs to the time before.
  4. An apply that would change a field that another manager owns is a conflict, unless forced: then the other loses it.
"""
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshtls.lab.api import schema, status, zeros
from meshtls.lab.api.field import quote
from meshtls.lab.api.store import clone

Path = tuple[str, ...]
Reset = Callable[[Path], bool]
Object = dict[str, Any]

_UNTRACKED = {("f:metadata",), ("f:apiVersion",), ("f:kind",)} | {("f:metadata", f"f:{name}") for name in (
    "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion",
    "deletionTimestamp", "deletionGracePeriodSeconds")}
"""What nobody owns."""
_NOTHING = object()
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Changes(msgspec.Struct, frozen=True):
    """What differs between two objects."""

    added: set[Path]
    modified: set[Path]
    removed: set[Path]


def owned(node: dict[str, Any], obj: Object) -> set[Path]:
    """The fields of an applied configuration: leaves, keys of maps, items of lists."""
    found: set[Path] = set()
    _own(node, obj, (), found)
    return found - _UNTRACKED


def _own(node: dict[str, Any], value: Any, path: Path, found: set[Path]) -> None:
    atomic = bool(path) and schema.is_atomic(node)
    parts = None if atomic else _parts(node, None, value)
    if parts is None and (atomic or path and value != []):
        found.add(path)
    for element, child, _, item in parts or ():
        field = element.startswith("f:")
        if not field or element[2:] not in (node.get("properties") or {}):
            found.add((*path, element))
        if field or schema.merge_keys(node):
            _own(child, item, (*path, element), found)


_TYPES: dict[str, tuple[type, str]] = {"object": (dict, "map"), "array": (list, "list"), "string": (str, "string"),
                                       "boolean": (bool, "boolean")}


def faults(node: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What of an applied configuration does not fit the schema."""
    node = schema.resolve(node)
    kind = node.get("type")
    if value is None or not kind or "x-kubernetes-preserve-unknown-fields" in node and not isinstance(value, dict):
        return
    if kind in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, (int, float))):
        yield f"{path}: expected numeric (int or float), got {type(value).__name__.replace('str', 'string')}"
    elif kind in _TYPES and not isinstance(value, _TYPES[kind][0]) and not node.get("x-quantity"):
        told = value if kind in ("object", "array") else f"Value:{_go(value)}"
        shown_as = f"{{{told}}}" if kind in ("object", "array") else f"value.valueUnstructured{{{told}}}"
        yield f"{path}: expected {_TYPES[kind][1]}, got &{shown_as}"
    elif isinstance(value, dict):
        known, inner = node.get("properties") or {}, node.get("additionalProperties")
        open_ended = node.get("x-kubernetes-preserve-unknown-fields") or not known and not isinstance(inner, dict)
        for key, item in value.items():
            if key in known or isinstance(inner, dict):
                yield from faults(schema.child(node, key), item, f"{path}.{key}")
            elif not open_ended and not (not path and key in ("apiVersion", "kind")):
                yield f"{path}.{key}: field not declared in schema"
    elif isinstance(value, list):
        keys, seen = schema.merge_keys(node), set()
        for place, item in enumerate(value):
            at = f"{path}[{place}]"
            if keys and isinstance(item, dict):
                if not schema.mark(node, item):
                    yield (f"{path}: element {place}: associative list with keys has an element that omits all key fields "
                           f"[{' '.join(map(quote, keys))}] (and doesn't have default values for any key fields)")
                    continue
                at = path + shown((_element(node, item),))
                if at in seen:
                    yield f"{path}: duplicate entries for key {at.removeprefix(path)}"
                seen.add(at)
            yield from faults(node.get("items") or {}, item, at)


def _go(value: Any) -> str:
    return quote(value) if isinstance(value, str) else json.dumps(value)


def compare(node: dict[str, Any], old: Object, new: Object) -> Changes:
    """A field that appears or goes counts with everything that holds it and is in it."""
    found = Changes(set(), set(), set())
    _compare(node, old, new, (), found)
    for paths in (found.added, found.modified, found.removed):
        paths -= {path for path in paths if path[:2] in _UNTRACKED}
    return found


def _compare(node: dict[str, Any], old: Any, new: Any, path: Path, found: Changes) -> None:
    if old is _NOTHING or new is _NOTHING:
        (found.added if old is _NOTHING else found.removed).add(path)
        old, new = (_bare(new), new) if old is _NOTHING else (old, _bare(old))
    atomic = bool(path) and schema.is_atomic(node)
    parts = None if atomic else _parts(node, old, new)
    if parts is None:
        if old != new and path not in found.added | found.removed:
            found.modified.add(path)
        return
    for element, child, before, after in parts:
        _compare(child, before, after, (*path, element), found)


def _parts(node: dict[str, Any], old: Any, new: Any) -> Iterator[tuple[str, dict[str, Any], Any, Any]] | None:
    """The parts of two maps or lists side by side; None for what has none."""
    sides = [one for one in (old, new) if one]
    if not sides:
        return None
    if all(isinstance(one, dict) for one in sides):
        left, right = old or {}, new or {}
        return ((f"f:{key}", schema.child(node, key), left.get(key, _NOTHING), right.get(key, _NOTHING))
                for key in {**left, **right})
    if all(isinstance(one, list) for one in sides):
        left, right = ({_element(node, item): item for item in one or ()} for one in (old, new))
        return ((element, schema.items(node), left.get(element, _NOTHING), right.get(element, _NOTHING))
                for element in {**left, **right})
    return None


def _bare(value: Any) -> Any:
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else value


def _element(node: dict[str, Any], item: Any) -> str:
    if schema.merge_keys(node) and isinstance(item, dict):
        return "k:" + msgspec.json.encode(schema.mark(node, item), order="sorted").decode()
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


UNTIMED = "scale"
"""Owners by this subresource have no time."""


class Manager(msgspec.Struct):
    """One entry of managedFields; its first four fields tell one from another."""

    name: str
    operation: str
    api_version: str
    subresource: str
    paths: set[Path]
    time: str

    @classmethod
    def of(cls, entry: Object) -> "Manager":
        return cls(entry.get("manager", ""), entry.get("operation", "Update"), entry.get("apiVersion", ""),
                   entry.get("subresource", ""), set(decode(entry.get("fieldsV1") or {})), entry.get("time", ""))

    def same(self, other: "Manager") -> bool:
        return msgspec.structs.astuple(self)[:4] == msgspec.structs.astuple(other)[:4]

    def entry(self) -> Object:
        found = {"manager": self.name, "operation": self.operation, "apiVersion": self.api_version,
                 **({"time": self.time} if self.time and self.subresource != UNTIMED else {}), "fieldsType": "FieldsV1", "fieldsV1": encode(self.paths)}
        return {**found, "subresource": self.subresource} if self.subresource else found

    def __str__(self) -> str:
        text = quote(self.name)
        if self.subresource:
            text += f" with subresource {quote(self.subresource)}"
        return text if self.operation == "Apply" else f"{text} using {self.api_version}"


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
                  key=lambda one: (one.operation, one.time if one.subresource != UNTIMED else "", one.name, one.api_version,
                                   one.subresource))
    metadata = obj.setdefault("metadata", {})
    metadata.pop("managedFields", None)
    if kept:
        metadata["managedFields"] = [manager.entry() for manager in kept]


def updated(node: dict[str, Any], old: Object | None, new: Object, manager: str, api_version: str, subresource: str,
            now: str, reset: Reset = lambda path: False) -> None:
    """Write the owners into `new` after an update or create by `manager` (in place). `reset` tells the fields that
    this way of writing does not change."""
    given = (new.get("metadata") or {}).get("managedFields")
    held = _managers(new if given is not None else (old or {}))
    if old is not None and not held:
        _write(new, [])
        return
    gained, removed = _changed(node, old, new, reset)
    for one in held:
        one.paths -= gained | removed
    if gained:
        me = Manager(manager, "Update", api_version, subresource, set(), now)
        mine = next((one for one in held if one.same(me)), me)
        mine.paths, mine.time = mine.paths | gained, now
        held = [*(one for one in held if one is not mine), mine]
    _write(new, held)


def applied(node: dict[str, Any], live: Object | None, config: Object, manager: str, api_version: str, force: bool,
            now: str, subresource: str = "", reset: Reset = lambda path: False, said: str = "") -> Object:
    """The object after a server-side apply; `said` is the configuration as kubectl notes it. Raises ApiError 409 naming every conflict."""
    wanted = {path for path in owned(node, config) if not reset(path)}
    base: Object = clone(live) if live is not None else {}
    held = _managers(base)
    if live is not None and not held:
        held = [Manager("before-first-apply", "Update", api_version, "", _changed(node, None, live, reset)[0], now)]
    me = Manager(manager, "Apply", api_version, subresource, wanted, now)
    mine = next((one for one in held if one.same(me)), None)
    others = [one for one in held if one is not mine]
    result: Object = _merged(schema.resolve(node), base, config)
    if mine is not None:
        kept = set().union(*(one.paths for one in others)) if others else set()
        for path in sorted(mine.paths - wanted, key=len):
            if not any(other[:len(path)] == path for other in kept | wanted):
                _remove(result, path, schema.resolve(node))
    gained, removed = _changed(node, live, result, reset)
    changed = result != live
    clashes = [(one, sorted(one.paths & gained, key=_rank)) for one in others if one.paths & gained]
    known = _known(node, live, api_version) if clashes and manager == "kubectl" else set()
    if (clashes := [(one, rest) for one, paths in clashes if (rest := [path for path in paths if path not in known])]) and not force:
        raise _conflict(clashes)
    annotations = (result.get("metadata") or {}).get("annotations") or {}
    if manager == "kubectl" and annotations.get(LAST_APPLIED):
        annotations[LAST_APPLIED] = said
    for one in others:
        one.paths -= gained | removed
    if not changed:
        me.time = mine.time if mine is not None else ""
    _write(result, [*others, me])
    return result


def noted(config: Object) -> str:
    """A configuration as kubectl's annotation holds it."""
    metadata = {key: value for key, value in (config.get("metadata") or {}).items() if key != "managedFields"}
    if metadata.get("annotations"):
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
    text = json.dumps({**config, "metadata": metadata}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "".join(f"\\u{ord(char):04x}" if char in "<>&" else char for char in text) + "\n"


def _known(node: dict[str, Any], live: Object | None, api_version: str) -> set[Path]:
    """Fields that kubectl's client-side apply has set, and that still have its values."""
    try:
        last = json.loads(((live or {}).get("metadata") or {}).get("annotations", {}).get(LAST_APPLIED, ""))
    except ValueError:
        return set()
    if not isinstance(last, dict) or last.get("apiVersion") != api_version:
        return set()
    changes = compare(node, last, live or {})
    return owned(node, last) - changes.added - changes.modified - changes.removed


def _changed(node: dict[str, Any], old: Object | None, new: Object, reset: Reset) -> tuple[set[Path], set[Path]]:
    """What a write gives its manager, and what it takes away."""
    changes = compare(node, zeros.empty(node) if old is None else old, new)
    return ({path for path in changes.added | changes.modified if not reset(path)},
            {path for path in changes.removed if not reset(path)})


def _rank(path: Path) -> list[tuple[bool, str]]:
    """On each level what ends there comes first."""
    return [(place < len(path) - 1, element) for place, element in enumerate(path)]


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
    if schema.is_atomic(node) or type(base) is not type(config):
        return clone(config)
    if isinstance(config, dict):
        return {**base, **{key: _merged(schema.child(node, key), base[key], value) if key in base else clone(value)
                           for key, value in config.items()}}
    if isinstance(config, list):
        keys = schema.merge_keys(node)
        held, given = ({_element(node, item): item for item in one} for one in (base, config))
        merged = {mark: _merged(schema.items(node), held[mark], item) if mark in held and keys else clone(item)
                  for mark, item in given.items()}
        return [merged.pop(mark, item) for mark, item in held.items()] + list(merged.values())
    return clone(config)


def _remove(obj: Any, path: Path, node: dict[str, Any]) -> None:
    """Take one field out, and what it leaves empty."""
    (kind, _, name), rest = path[0].partition(":"), path[1:]
    if kind == "f" and isinstance(obj, dict) and name in obj:
        child = schema.child(node, name)
        if rest:
            _remove(obj[name], rest, child)
        if not rest or obj[name] in ({}, []) and "x-model" not in child:
            del obj[name]
    elif kind != "f" and isinstance(obj, list):
        marks = [_element(node, item) for item in obj]
        if path[0] in marks and rest:
            _remove(obj[marks.index(path[0])], rest, schema.items(node))
        elif path[0] in marks:
            del obj[marks.index(path[0])]

"""The structures that an object consists of, each with its place: what defaults, validation and warnings hang on.

`walk` gives a structure before those inside it and looks inside only when asked on, so that a caller may fill it in.
Metadata, the status and the schemas of custom kinds are left out.

A rule takes a Part and gives its FieldErrors; those with one condition are made here: `needs` a field, `bad` value,
`never` (forbidden), `each` of a list by a check, `labels`, `unique`, `fixed` on updates. `part["a.b"]` is the value
below the part, None where there is none; the field "" is the part itself.
"""
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from meshtls.lab.api import field, schema
from meshtls.lab.api.field import FieldError

Object = dict[str, Any]
_CLOSED = {"V1ObjectMeta", "V1JSONSchemaProps"}


class Part(msgspec.Struct, frozen=True):
    """One structure. `key`: the field of `above` that holds it; `before`: the items before it in the same list; `old`:
    what it was before an update, None if nothing."""

    model: str
    value: Object
    path: str = ""
    key: str = ""
    above: "Part | None" = None
    old: Object | None = None
    before: list[Any] = []

    def __getitem__(self, key: str) -> Any:
        found: Any = self.value
        for name in key.split(".") if key else ():
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def within(self, model: str) -> Object:
        """The nearest structure of this kind around the part, {} if there is none."""
        if self.model == model:
            return self.value
        return self.above.within(model) if self.above else {}


Rule = Callable[[Part], Iterable[FieldError]]
Wrong = Callable[[Part], Any]


def needs(key: str, detail: str = "", when: Wrong | None = None) -> Rule:
    """A field is required: always, or when something holds."""
    return lambda part: [field.required(part.at(key), detail)] if (when(part) if when else not part[key]) else []


def bad(key: str, detail: str, when: Wrong, *, value: Callable[[Part], Any] | None = None) -> Rule:
    """A field is invalid when something holds; `value` is told in place of the field's own."""
    return lambda part: [field.invalid(part.at(key), value(part) if value else part[key], detail)] if when(part) else []


def never(key: str, detail: str, when: Wrong) -> Rule:
    """A field is forbidden when something holds."""
    return lambda part: [field.forbidden(part.at(key), detail)] if when(part) else []


def each(key: str, check: Callable[[Any], list[str]]) -> Rule:
    """A check of a field, or of each item of a list; nothing is said of one that is not given."""
    def rule(part: Part) -> Iterator[FieldError]:
        value = part[key]
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from field.told(f"{part.at(key)}[{place}]", item, check)
        elif value not in (None, ""):
            yield from field.told(part.at(key), value, check)
    return rule


def labels(key: str) -> Rule:
    return lambda part: field.labels(part.at(key), part[key] or {})


def unique(key: str, mark: Callable[[Any], Any], tail: str = "") -> Rule:
    """No item of a list has the mark of one before it; None is no mark."""
    def rule(part: Part) -> Iterator[FieldError]:
        marks = [mark(item) for item in part[key] or ()]
        for place, held in enumerate(marks):
            if held is not None and held in marks[:place]:
                yield field.duplicate(f"{part.at(key)}[{place}]{tail}", held)
    return rule


def fixed(*keys: str) -> Rule:
    """Fields that an update may not change."""
    return lambda part: () if part.old is None else [
        field.invalid(part.at(key), part[key], field.IMMUTABLE) for key in keys if part.old.get(key) != part[key]]


def walk(node: schema.Node, value: Any, old: Any = None) -> Iterator[Part]:
    return _walk(schema.resolve(node), value, "", "", None, old, [])


def _walk(node: schema.Node, value: Any, path: str, key: str, above: Part | None, old: Any,
          before: list[Any]) -> Iterator[Part]:
    if isinstance(value, list):
        items = schema.resolve(node.get("items") or {})
        for place, item in enumerate(value if "x-model" in items or "items" in items else ()):
            yield from _walk(items, item, f"{path}[{place}]", key, above, None, value[:place])
        return
    if not isinstance(value, dict) or "x-model" not in node or node["x-model"] in _CLOSED:
        return
    part = Part(node["x-model"], value, path, key, above, old, before)
    yield part
    for name, inner in list(value.items()):
        if isinstance(inner, (dict, list)) and name in node["properties"] and (above is not None or name != "status"):
            former = old.get(name) if isinstance(old, dict) else None
            yield from _walk(schema.resolve(node["properties"][name]), inner, part.at(name), name, part, former, [])

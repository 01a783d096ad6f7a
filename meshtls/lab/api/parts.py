"""The structures that an object consists of, each with its place: what defaults, validation and warnings hang on.

`walk` gives a structure before those inside it and looks inside only when asked on, so that a caller may fill it in.
Metadata, the status and the schemas of custom kinds are left out. A Part makes the FieldErrors of its own fields.
"""
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshtls.lab.api import field, schema
from meshtls.lab.api.field import FieldError

Object = dict[str, Any]
_CLOSED = {"V1ObjectMeta", "V1JSONSchemaProps"}


class Part(msgspec.Struct, frozen=True):
    """One structure. `key`: the field of `above` that holds it; `old`: what it was before an update, None if nothing."""

    model: str
    value: Object
    path: str = ""
    key: str = ""
    above: "Part | None" = None
    old: Object | None = None

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def items(self, key: str) -> list[Any]:
        return self.value.get(key) or []

    def held(self, *keys: str) -> Any:
        """The value below some fields, {} where there is none."""
        found: Any = self.value
        for key in keys:
            found = found.get(key) or {}
        return found

    def required(self, key: str, detail: str = "") -> FieldError:
        return field.required(self.at(key), detail)

    def invalid(self, key: str, detail: str) -> FieldError:
        return field.invalid(self.at(key), self.value.get(key), detail)

    def forbidden(self, key: str, detail: str) -> FieldError:
        return field.forbidden(self.at(key), detail)

    def told(self, key: str, check: Callable[[Any], list[str]]) -> Iterator[FieldError]:
        """What a check says of a field, or of each item of a list; nothing of one that is not given."""
        value = self.value.get(key)
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from field.told(f"{self.at(key)}[{place}]", item, check)
        elif value not in (None, ""):
            yield from field.told(self.at(key), value, check)

    def labels(self, *keys: str) -> Iterator[FieldError]:
        """What is wrong with a map of labels."""
        return field.labels(self.at(".".join(keys)), self.held(*keys))

    def unique(self, key: str, of: str = "") -> Iterator[FieldError]:
        """Each item of a list, or each item's field `of`, that stood there before."""
        marks = [item.get(of) if of else item for item in self.items(key)]
        for place, mark in enumerate(marks):
            if mark and mark in marks[:place]:
                yield field.duplicate(f"{self.at(key)}[{place}]{f'.{of}' if of else ''}", mark)

    def fixed(self, *keys: str) -> Iterator[FieldError]:
        """Fields that an update may not change."""
        if self.old is not None:
            yield from (self.invalid(key, field.IMMUTABLE) for key in keys if self.old.get(key) != self.value.get(key))


def walk(node: schema.Node, value: Any, old: Any = None) -> Iterator[Part]:
    return _walk(schema.resolve(node), value, "", "", None, old)


def _walk(node: schema.Node, value: Any, path: str, key: str, above: Part | None, old: Any) -> Iterator[Part]:
    if isinstance(value, list):
        items = schema.resolve(node.get("items") or {})
        for place, item in enumerate(value if "x-model" in items or "items" in items else ()):
            yield from _walk(items, item, f"{path}[{place}]", key, above, None)
        return
    if not isinstance(value, dict) or "x-model" not in node or node["x-model"] in _CLOSED:
        return
    part = Part(node["x-model"], value, path, key, above, old)
    yield part
    for name, inner in list(value.items()):
        if isinstance(inner, (dict, list)) and name in node["properties"] and (above is not None or name != "status"):
            before = old.get(name) if isinstance(old, dict) else None
            yield from _walk(schema.resolve(node["properties"][name]), inner, part.at(name), name, part, before)

"""The structures that an object consists of, each with its place: what defaults, validation and warnings hang on.

`walk` gives a structure before those inside it and looks inside only when asked on, so that a caller may fill it in.
Metadata, the status and the schemas of custom kinds are left out.

A rule takes a Part and gives its FieldErrors; those with one condition are made here: `needs` a field, `bad` value,
`never` (forbidden), `each` of a list by a check, `labels`, `unique`, `fixed` on updates. `part["a.b"]` is the value
below the part, None where there is none; the field "" is the part itself.
"""
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from meshtls.lab.api import field, schema
from meshtls.lab.api.field import FieldError

Object = dict[str, Any]
_CLOSED = {"V1ObjectMeta", "V1JSONSchemaProps"}


class Part(msgspec.Struct, frozen=True):
    """One structure. `key`: the field of `above` that holds it, `place`: in which place of a list, -1 for none; `old`:
    what it was before an update, None if nothing."""

    model: str
    value: Object
    key: str = ""
    place: int = -1
    above: "Part | None" = None
    old: Object | None = None

    @property
    def path(self) -> str:
        at = self.above.at(self.key) if self.above else ""
        return at if self.place < 0 else f"{at}[{self.place}]"

    @property
    def before(self) -> list[Any]:
        """The items before it in the same list."""
        return self.above.value[self.key][:self.place] if self.above and self.place > 0 else []

    def __getitem__(self, key: str) -> Any:
        if "." not in key:
            return self.value.get(key) if key else self.value
        found: Any = self.value
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def at(self, key: str) -> str:
        path = self.path
        return f"{path}.{key}" if path and key else path or key

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


def each(key: str, check: Callable[[Any], list[str]], *, blank: bool = False) -> Rule:
    """A check of a field, or of each item of a list; nothing is said of one that is not given, or empty unless `blank`."""
    def rule(part: Part) -> Iterator[FieldError]:
        value = part[key]
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from field.told(f"{part.at(key)}[{place}]", item, check)
        elif value or value == 0 or blank and value == "":
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


class Change:
    """A rule about what an update changes: told after all others."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __call__(self, part: Part) -> Iterable[FieldError]:
        return () if part.old is None else self._rule(part)


def fixed(*keys: str) -> Rule:
    """Fields that an update may not change."""
    return Change(lambda part: [field.invalid(part.at(key), part[key], field.IMMUTABLE)
                                for key in keys if part.old and part.old.get(key) != part[key]])


def walk(node: schema.Node, value: Object, old: Object | None = None) -> Iterator[Part]:
    """Nothing for objects of custom kinds."""
    model = schema.resolve(node).get("x-model", "")
    waiting = [Part(model, value, old=old)] if model else []
    while waiting:
        part = waiting.pop()
        yield part
        within = _structures(part.model)
        found: list[Part] = []
        for name, held in part.value.items() if within else ():
            if name not in within or (part.above is None and name == "status"):
                continue
            if isinstance(held, dict):
                found.append(Part(within[name], held, name, -1, part, part.old.get(name) if part.old else None))
            elif isinstance(held, list):
                found += [Part(within[name], item, name, place, part) for place, item in enumerate(held)
                          if isinstance(item, dict)]
        waiting += reversed(found)


@functools.cache
def _structures(model: str) -> dict[str, str]:
    """The fields of a structure that hold structures, or lists of them, and of which kind these are."""
    kinds = {name: (child if "$ref" in child else child.get("items") or {}).get("$ref", "")
             for name, child in (schema.model(model).get("properties") or {}).items()}
    return {name: kind for name, kind in kinds.items() if kind and kind not in _CLOSED}

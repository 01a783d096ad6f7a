"""From bytes to JSON values: JSON or YAML, what stands twice in them, and complaints as Go's parsers make them."""
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

from meshtls.lab.api.field import quote

TYPE_META = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
_EXPECTED = {"Expecting property name": "looking for beginning of object key string",
             "Expecting value": "looking for beginning of value",
             "Expecting ':'": "after object key", "Extra data": "after top-level value"}
_TIME = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"), ("15", r"\d\d"), (":", ":"),
         ("04", r"\d\d"), (":", ":"), ("05", r"\d\d"))
_ZONE = ("Z07:00", r"Z|[+-]\d\d:\d\d")
"""Go's words for the parts of a time, and their forms."""


class Faulty(ValueError):
    """The bytes are no JSON or YAML; the text says why."""


class Repeated(dict[str, Any]):
    """A JSON object in which some keys stood twice (the last one holds)."""

    keys_twice: tuple[str, ...] = ()
    lines_twice: tuple[str, ...] = ()


def from_json(body: bytes) -> Any:
    """Raises Faulty."""
    try:
        return json.loads(body, object_pairs_hook=_pairs)
    except ValueError:
        pass
    except RecursionError as error:
        raise Faulty("exceeded max depth") from error
    try:  # byte by byte, as Go counts; what is no UTF-8 is replaced in texts and wrong elsewhere
        json.loads(body.decode("latin-1"))
        return json.loads(body.decode(errors="replace"), object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise Faulty(_syntax(error)) from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = Repeated(found)
    names = [key for key, _ in pairs]
    repeated.keys_twice = tuple(key for key in found if names.count(key) > 1)
    return repeated


def repeated(value: Any, path: str = "") -> Iterator[str]:
    """Where a key stands twice in a value."""
    if isinstance(value, Repeated):
        yield from (f"duplicate field {quote(joined(path, key))}" for key in value.keys_twice)
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from repeated(item, joined(path, key) if isinstance(key, str) else f"{path}[{key}]")


def joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _syntax(error: json.JSONDecodeError) -> str:
    """The parser's complaint as Go's encoding/json makes it."""
    text = error.doc
    place = error.pos
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    if place >= len(text) or error.msg.startswith("Unterminated"):
        return "unexpected end of JSON input"
    shown = _rune(text[place])
    for start, told in _EXPECTED.items():
        if error.msg.startswith(start):
            for word in ("true", "false", "null") if start == "Expecting value" else ():
                known = next((at for at, char in enumerate(word) if text[place + at:place + at + 1] != char), len(word))
                if known and place + known < len(text):
                    return f"invalid character {_rune(text[place + known])} in literal {word} (expecting {_rune(word[known])})"
            return f"invalid character {shown} {told}"
    inside = text[:place]
    in_list = inside.rfind("[") > inside.rfind("{")
    return f"invalid character {shown} after {'array element' if in_list else 'object key:value pair'}"


def _rune(char: str) -> str:
    """A byte as Go shows it."""
    if char >= "\x80":
        return f"'\\x{ord(char):02x}'"
    return "'" + quote(char)[1:-1].replace("'", "\\'").replace('\\"', '"') + "'"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Go reads it: y and n are truth values, dates are texts; what stands twice is noted by its line."""

    bool_values: ClassVar = {**yaml.SafeLoader.bool_values, "y": True, "n": False}
    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.twice: list[str] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key, _ in node.value:
            if key.value in keys:
                self.twice.append(f"line {key.start_mark.line + 1}: key {quote(str(key.value))} already set in map")
            keys.append(key.value)
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))


def from_yaml(body: bytes) -> tuple[Any, list[str]]:
    """The value, and what stands twice in it. Raises Faulty."""
    try:
        loader = _Loader(body)
        value = loader.get_single_data()
        return json.loads(json.dumps(value, default=str)), loader.twice
    except yaml.MarkedYAMLError as error:
        mark, scanned = error.problem_mark, isinstance(error, yaml.scanner.ScannerError)
        line = mark.line + (scanned and mark.line > 0) if mark else 0
        raise Faulty(f"yaml: {f'line {line}: ' if line else ''}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise Faulty(f"yaml: {' '.join(str(error).split())[:200]}") from error


def kind_of(value: Any) -> str:
    """A value's type as Go's JSON names it."""
    names: dict[type, str] = {str: "string", list: "array", bool: "bool", type(None): "null", int: "number", float: "number"}
    return names.get(type(value), "object")


def time_fault(text: str, *, micro: bool = False) -> str:
    """"" or what of a time cannot be read, and as what, as Go's time.Parse tells it."""
    fraction = ((".000000", r"\.\d{6}"),) if micro else (("", r"(\.\d+)?"),)
    layout, rest = f"2006-01-02T15:04:05{fraction[0][0]}Z07:00", text
    for word, form in (*_TIME, *fraction, _ZONE):
        if (match := re.match(form, rest)) is None:
            return f'parsing time {quote(text)} as "{layout}": cannot parse {quote(rest)} as "{word}"'
        rest = rest[match.end():]
    return f"parsing time {quote(text)}: extra text: {quote(rest)}" if rest else ""

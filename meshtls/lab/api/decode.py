"""From a request's bytes to an object: parsed, of the right kind, its fields known and of the right type.

The order of complaints is the API server's: syntax, kind and version, types, then unknown and duplicate fields, which
are an error, a warning or nothing as `fieldValidation` says (Strict, Warn, Ignore). Unknown fields are dropped, also
from custom resources unless their schema keeps them. What a typed server would not write back (nulls, empty lists and
maps, false where absent means false) is left out of built-in kinds, so that a second apply changes nothing.
"""
import base64
import json
import re
from typing import Any

import yaml

from meshtls.lab.api import protobuf, schema, status, zeros
from meshtls.lab.api.field import quote
from meshtls.lab.api.quantities import FORM, quantity
from meshtls.lab.api.resources import Registry, Resource
from meshtls.lab.api.store import clone

LIMIT_BYTES = 3 * 1024 * 1024
_PLACE = re.compile(r"\[\d+\]")
_MICRO = {"renewTime", "acquireTime", "eventTime", "lastObservedTime"}
_TIME, _ZONE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", r"(Z|[-+]\d\d:\d\d)"


class Repeated(dict[str, Any]):
    """A JSON object in which some keys stood twice (the last one holds)."""

    keys_twice: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = Repeated(found)
    names = [key for key, _ in pairs]
    repeated.keys_twice = tuple(key for key in found if names.count(key) > 1)
    return repeated


def parse(body: bytes, content_type: str, kind: str) -> dict[str, Any]:
    """JSON or YAML to an object. Raises ApiError 400 (or 413 over 3 MiB) in the API server's words."""
    if len(body) > LIMIT_BYTES:
        raise status.too_large(LIMIT_BYTES)
    if body.startswith(protobuf.MAGIC):
        return protobuf.decode(body)
    try:
        if "yaml" in content_type:
            value = json.loads(json.dumps(yaml.safe_load(body), default=str), object_pairs_hook=_pairs)
        else:
            value = json.loads(body, object_pairs_hook=_pairs)
    except yaml.YAMLError as error:
        fault = f"error converting YAML to JSON: yaml: {' '.join(str(error).split())[:200]}"
    except (ValueError, RecursionError) as error:
        fault = f"json parse error: {syntax(body, error)}"
    else:
        if isinstance(value, dict) or value is None:
            return value or {}
        fault = f"json parse error: json: cannot unmarshal {_json_type(value)} into Go value of type struct"
    raise status.bad_request(f"the object provided is unrecognized (must be of type {kind}): couldn't get "
                             f"version/kind; {fault} "
                             f"({_summary(body)})")


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    if body[:1] == b"{":
        return body[:30].decode(errors="replace") + (" ..." if len(body) > 30 else "")
    return body[:30].hex() + (" ..." if len(body) > 30 else "")


def syntax(body: bytes, error: Exception) -> str:
    """The parser's complaint as Go's encoding/json makes it."""
    if not isinstance(error, json.JSONDecodeError):
        return "invalid UTF-8"
    text = error.doc
    place = error.pos
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    if place >= len(text) or error.msg.startswith("Unterminated"):
        return "unexpected end of JSON input"
    shown = "'" + quote(text[place])[1:-1].replace("'", "\\'").replace('\\"', '"') + "'"
    where = {"Expecting property name": "looking for beginning of object key string",
             "Expecting value": "looking for beginning of value",
             "Expecting ':'": "after object key", "Extra data": "after top-level value"}
    for start, told in where.items():
        if error.msg.startswith(start):
            return f"invalid character {shown} {told}"
    inside = text[:place]
    in_list = inside.rfind("[") > inside.rfind("{")
    return f"invalid character {shown} after {'array element' if in_list else 'object key:value pair'}"


def check_kind(obj: dict[str, Any], resource: Resource, version: str, registry: Registry) -> None:
    """The object's apiVersion and kind fit the path. Missing ones are filled in (built-in kinds only)."""
    wanted = resource.api_version(version)
    if not resource.custom:
        obj["apiVersion"], obj["kind"] = obj.get("apiVersion") or wanted, obj.get("kind") or resource.kind
    elif not isinstance(obj.get("kind"), str) or not obj.get("kind"):
        text = json.dumps(obj, separators=(",", ":"))
        raise status.bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is "
                                 f"missing in '{text[:200]}' ({_summary(text.encode())})")
    given, kind = str(obj.get("apiVersion") or ""), str(obj["kind"])
    if not resource.custom and (given, kind) != (wanted, resource.kind):
        group, _, at = given.rpartition("/")
        known = registry.of_kind(group, kind)
        if known is None or at not in known.versions:
            raise cannot(resource, at, f'no kind "{kind}" is registered for version "{given}" in scheme '
                         '"pkg/api/legacyscheme/scheme.go:30"', kind)
        if kind != resource.kind:
            internal = resource.group.partition(".")[0] or "core"
            raise cannot(resource, at, f"converting ({at}.{kind}) to ({internal}.{resource.kind}): unknown conversion", kind)
    if given != wanted:
        raise status.bad_request(f"the API version in the data ({given}) does not match the expected API version "
                                 f"({wanted})")


def cannot(resource: Resource, version: str, why: str, kind: str = "") -> status.ApiError:
    """The refusal of an object that cannot be read as one of the resource's."""
    return status.bad_request(f'{kind or resource.kind} in version "{version}" cannot be handled as a {resource.kind}: {why}')


def shape(obj: dict[str, Any], resource: Resource, version: str, *,
          whole: bool = True) -> tuple[dict[str, Any], list[str]]:
    """The object with known fields only, and the complaints about the others ('unknown field "a.b"'). `whole`: with
    everything that a typed server writes though nobody gave it."""
    walker = _Walker(resource, version, whole)
    found = walker.object(schema.of(resource, version), obj, "", "" if resource.custom else resource.kind)
    complaints = walker.complaints
    if resource.custom:  # what is there twice is seen by the parser, before the schema
        complaints.sort(key=lambda told: not told.startswith("duplicate "))
    return found, complaints


def judge(complaints: list[str], level: str, resource: Resource, version: str) -> list[str]:
    """Warnings for complaints, or an error when they are strict."""
    if complaints and level == "Strict":
        raise cannot(resource, version, "strict decoding error: " + ", ".join(complaints))
    return [] if level == "Ignore" else complaints


class _Walker:
    """Through an object beside its schema. `struct`: the Go type that holds a value, "" in custom resources, whose types
    are checked later."""

    def __init__(self, resource: Resource, version: str, whole: bool) -> None:
        self._resource, self._version, self._whole = resource, version, whole
        self.complaints: list[str] = []

    def object(self, node: dict[str, Any], obj: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        typed, inner, properties = "x-model" in node, node.get("additionalProperties"), node.get("properties") or {}
        keeps = node.get("x-kubernetes-preserve-unknown-fields") or inner is True or not (typed or properties or inner)
        embedded = ("apiVersion", "kind", "metadata") if node.get("x-kubernetes-embedded-resource") else ()
        found: dict[str, Any] = {}
        self._repeated(obj, path)
        for key, value in obj.items():
            at = _join(path, key)
            if key in properties:
                child = schema.resolve(properties[key])
                if not typed and "x-model" not in child:
                    found[key] = self.value(child, value, at, struct, key)
                elif value is not None:
                    kept = self.value(child, value, at, struct or self._resource.kind, key)
                    if not (self._whole and zeros.left_out(key, kept, child, node)):
                        found[key] = kept
            elif isinstance(inner, dict):
                found[key] = self.value(inner, value, at, struct, key)
            elif keeps or key in embedded:
                found[key] = clone(value)
            else:
                self.complaints.append(f"unknown field {quote(at)}")
        if typed and self._whole:
            zeros.fill(node, found)
        return found

    def value(self, node: dict[str, Any], value: Any, path: str, struct: str, key: str) -> Any:
        node = schema.resolve(node)
        kind = node.get("type")
        if isinstance(value, dict) and (kind == "object" or (kind is None and "properties" in node)):
            if isinstance(node.get("additionalProperties"), dict):
                return self._map(node, value, path, struct)
            return self.object(node, value, path, node.get("x-model", "").lstrip("V0123456789"))
        if isinstance(value, list) and kind == "array":
            items = node.get("items") or {}
            return [self.value(items, item, f"{path}[{place}]", struct, key) for place, item in enumerate(value)
                    if item is not None or not struct]
        if not struct:
            return clone(value)
        if node.get("x-quantity"):
            if (canonical := quantity(value)) is None:
                raise cannot(self._resource, self._version, f"quantities must match the regular expression '{FORM}'")
            return canonical
        if value is not None and not _fits(node, value):
            raise cannot(self._resource, self._version, f"json: cannot unmarshal {_json_type(value, node)} into Go struct "
                         f"field {struct}.{_PLACE.sub('', path)} of type {_go_type(node)}")
        if node.get("format") == "date-time" and isinstance(value, str):
            self._time(value, micro=key in _MICRO)
        return clone(value)

    def _time(self, text: str, micro: bool) -> None:
        form = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        if not re.fullmatch(_TIME + (r"\.\d{6}" if micro else r"(\.\d+)?") + _ZONE, text):
            at = re.match(_TIME, text)
            rest, part = (text[at.end():], ".000000" if micro else "Z07:00") if at else (text, "2006")
            raise cannot(self._resource, self._version,
                         f'parsing time {quote(text)} as "{form}": cannot parse {quote(rest)} as "{part}"')

    def _map(self, node: dict[str, Any], value: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        inner = node["additionalProperties"]
        self._repeated(value, path)
        for text in value.values() if inner.get("format") == "byte" else ():
            if isinstance(text, str) and (place := _bad_base64(text)) is not None:
                raise cannot(self._resource, self._version, f"illegal base64 data at input byte {place}")
        if inner.get("type") == "string" and struct:
            return {key: "" if item is None else self.value(inner, item, path, struct, key) for key, item in value.items()}
        return {key: self.value(inner, item, _join(path, key), struct, key) for key, item in value.items()}

    def _repeated(self, obj: dict[str, Any], path: str) -> None:
        if isinstance(obj, Repeated):
            self.complaints += [f"duplicate field {quote(_join(path, key))}" for key in obj.keys_twice]


def _bad_base64(text: str) -> int | None:
    """Where a text ceases to be base64, as Go counts."""
    place = next((at for at, char in enumerate(text) if not (char.isascii() and (char.isalnum() or char in "+/=\r\n"))),
                 None)
    if place is not None:
        return place
    try:
        base64.b64decode(text, validate=False)
    except ValueError:
        return len(text)
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_PYTHON: dict[str, type] = {"string": str, "boolean": bool, "array": list, "object": dict}


def _fits(node: dict[str, Any], value: Any) -> bool:
    """Has the value the node's type?"""
    kind, whole = node.get("type"), isinstance(value, int) and not isinstance(value, bool)
    if node.get("x-kubernetes-int-or-string"):
        return isinstance(value, str) or whole
    if kind == "integer":
        bits = 63 if node.get("format") == "int64" else 31
        return whole and -(2 ** bits) <= value < 2 ** bits
    if kind == "number":
        return whole or isinstance(value, float)
    return kind not in _PYTHON or isinstance(value, _PYTHON[kind])


def _json_type(value: Any, node: dict[str, Any] | None = None) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"number {value}" if node and node.get("type") == "integer" else "number"
    return {str: "string", list: "array", bool: "bool", type(None): "null"}.get(type(value), "object")


def _go_type(node: dict[str, Any]) -> str:
    node = schema.resolve(node)
    if "x-model" in node:
        return f"v1.{node['x-model'].lstrip('V0123456789')}"
    if node.get("type") == "array":
        return "[]" + _go_type(node["items"])
    if node.get("type") == "object":
        return "map[string]" + _go_type(node.get("additionalProperties") or {"type": "string"})
    return {"integer": str(node.get("format", "int32")), "boolean": "bool", "number": "float64"}.get(
        node.get("type", ""), "string")

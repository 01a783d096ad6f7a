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
from meshtls.lab.api.quantities import quantity
from meshtls.lab.api.resources import Registry, Resource

LIMIT_BYTES = 3 * 1024 * 1024
_PLACE = re.compile(r"\[\d+\]")
_INTERNAL = {"": "core", "rbac.authorization.k8s.io": "rbac", "networking.k8s.io": "networking",
             "coordination.k8s.io": "coordination",
             "admissionregistration.k8s.io": "admissionregistration", "discovery.k8s.io": "discovery",
             "node.k8s.io": "node"}


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
    if resource.custom:
        if not isinstance(obj.get("kind"), str) or not obj.get("kind"):
            raise status.bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): Object "
                                     "'Kind' is missing in "
                                     f"'{json.dumps(obj, separators=(',', ':'))[:200]}' "
                                     f"({_summary(json.dumps(obj, separators=(',', ':')).encode())})")
    else:
        obj["apiVersion"], obj["kind"] = obj.get("apiVersion") or wanted, obj.get("kind") or resource.kind
    given, kind = str(obj.get("apiVersion") or ""), str(obj["kind"])
    if given == wanted and kind == resource.kind:
        return
    if not resource.custom:
        group, _, at = given.rpartition("/")
        known = registry.of_kind(group, kind)
        if known is None or at not in known.versions:
            raise status.bad_request(f'{kind} in version "{at}" cannot be handled as a {resource.kind}: no kind '
                                     f'"{kind}" is registered for '
                                     f'version "{given}" in scheme "pkg/api/legacyscheme/scheme.go:30"')
        if kind != resource.kind:
            internal = _INTERNAL.get(resource.group, resource.group)
            raise status.bad_request(f'{kind} in version "{at}" cannot be handled as a {resource.kind}: converting '
                                     f'({at}.{kind}) to '
                                     f"({internal}.{resource.kind}): unknown conversion")
    if given != wanted:
        raise status.bad_request(f"the API version in the data ({given}) does not match the expected API version "
                                 f"({wanted})")


def shape(obj: dict[str, Any], resource: Resource, version: str, *,
          whole: bool = True) -> tuple[dict[str, Any], list[str]]:
    """The object with known fields only, and the complaints about the others ('unknown field "a.b"'). `whole`: with
    everything that a typed server writes though nobody gave it."""
    complaints: list[str] = []
    walker = _Walker(resource, version, complaints, whole)
    node = schema.of(resource, version)
    found = walker.object(node, obj, "", "" if resource.custom else resource.kind)
    return found, complaints


def judge(complaints: list[str], level: str, resource: Resource, version: str) -> list[str]:
    """Warnings for complaints, or an error when they are strict."""
    if not complaints or level == "Ignore":
        return []
    if level == "Strict":
        raise status.bad_request(f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
                                 'strict decoding error: '
                                 + ", ".join(complaints))
    return complaints


class _Walker:
    def __init__(self, resource: Resource, version: str, complaints: list[str], whole: bool) -> None:
        self._resource, self._version, self._complaints, self._whole = resource, version, complaints, whole

    def object(self, node: dict[str, Any], obj: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        typed = "x-model" in node
        properties = node.get("properties") or {}
        keeps = node.get("x-kubernetes-preserve-unknown-fields") or (not typed and not properties and
                                                                     not node.get("additionalProperties"))
        embedded = node.get("x-kubernetes-embedded-resource")
        found: dict[str, Any] = {}
        for key in getattr(obj, "keys_twice", ()):
            self._complaints.append(f"duplicate field {quote(_join(path, key))}")
        for key, value in obj.items():
            child = properties.get(key)
            at = _join(path, key)
            if child is None:
                if isinstance(node.get("additionalProperties"), dict):
                    found[key] = self.value(node["additionalProperties"], value, at, struct, key)
                elif keeps or node.get("additionalProperties") is True or (embedded
                                                                           and key in ("apiVersion", "kind",
                                                                                       "metadata")):
                    found[key] = _bare(value)
                else:
                    self._complaints.append(f"unknown field {quote(at)}")
                continue
            resolved = schema.resolve(child)
            if typed or resolved.get("x-model"):
                if value is None:
                    continue
                kept = self.value(resolved, value, at, struct or self._resource.kind, key)
                if not zeros.left_out(key, kept, resolved, node):
                    found[key] = kept
            else:
                found[key] = self.value(resolved, value, at, struct, key)
        if typed and self._whole:
            zeros.fill(node, found)
        return found

    def value(self, node: dict[str, Any], value: Any, path: str, struct: str, key: str) -> Any:
        node = schema.resolve(node)
        typed = "x-model" in node or bool(struct)
        kind = node.get("type")
        if isinstance(value, dict) and (kind == "object" or (kind is None and "properties" in node)):
            if "additionalProperties" in node and isinstance(node["additionalProperties"], dict):
                return self._map(node, value, path, struct)
            inner = node["x-model"].lstrip("V0123456789") if "x-model" in node else ""
            return self.object(node, value, path, inner if "x-model" in node else "")
        if isinstance(value, list) and kind == "array":
            items = node.get("items") or {}
            return [self.value(items, item, f"{path}[{place}]", struct, key) for place, item in enumerate(value)
                    if item is not None or not typed]
        if not struct:
            return _bare(value)
        if node.get("x-quantity"):
            return quantity(value, self._resource.kind, self._version)
        if value is None or fits(node, value):
            if node.get("format") == "date-time" and isinstance(value, str):
                self._time(value, micro=key in _MICRO)
            return _bare(value)
        raise status.bad_request(
            f'{self._resource.kind} in version "{self._version}" cannot be handled as a {self._resource.kind}: json: '
            'cannot unmarshal '
            f"{_json_type(value, node)} into Go struct field {struct}.{_PLACE.sub('', path)} of type {_go_type(node)}")

    def _time(self, text: str, micro: bool) -> None:
        form = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        wanted = _TIME + (r"\.\d{6}" if micro else r"(\.\d+)?") + _ZONE
        if not re.fullmatch(wanted, text):
            at = re.match(_TIME, text)
            rest, part = (text[at.end():], ".000000" if micro else "Z07:00") if at else (text, "2006")
            raise status.bad_request(
                f'{self._resource.kind} in version "{self._version}" cannot be handled as a {self._resource.kind}: parsing '
                f'time {quote(text)} as "{form}": cannot parse {quote(rest)} as "{part}"')

    def _base64(self, value: dict[str, Any]) -> None:
        for text in value.values():
            place = _bad_base64(text) if isinstance(text, str) else None
            if place is not None:
                raise status.bad_request(f'{self._resource.kind} in version "{self._version}" cannot be handled as a '
                                         f'{self._resource.kind}: '
                                         f"illegal base64 data at input byte {place}")

    def _map(self, node: dict[str, Any], value: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        for key in getattr(value, "keys_twice", ()):
            self._complaints.append(f"duplicate field {quote(_join(path, key))}")
        inner = node["additionalProperties"]
        if inner.get("format") == "byte":
            self._base64(value)
        if inner.get("type") == "string" and struct:
            return {key: "" if item is None else self.value(inner, item, path, struct, key) for key,
                    item in value.items()}
        return {key: self.value(inner, item, _join(path, key), struct, key) for key, item in value.items()}


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


def _bare(value: Any) -> Any:
    """Without the parser's own dict class."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def fits(node: dict[str, Any], value: Any) -> bool:
    """Has the value the node's type?"""
    if node.get("x-kubernetes-int-or-string"):
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    match node.get("type"):
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            bits = 63 if node.get("format") == "int64" else 31
            return isinstance(value, int) and not isinstance(value, bool) and -(2 ** bits) <= value < 2 ** bits
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    return True


def _json_type(value: Any, node: dict[str, Any] | None = None) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {value}" if node and node.get("type") == "integer" else "number"
    return {str: "string", list: "array", dict: "object",
            type(None): "null"}.get(type(value), "object" if isinstance(value, dict) else "null")


def _go_type(node: dict[str, Any]) -> str:
    node = schema.resolve(node)
    if "x-model" in node:
        return f"v1.{node['x-model'].lstrip('V0123456789')}"
    match node.get("type"):
        case "array":
            return "[]" + _go_type(node["items"])
        case "object":
            return "map[string]" + _go_type(node.get("additionalProperties") or {"type": "string"})
        case "integer":
            return str(node.get("format", "int32"))
        case "boolean":
            return "bool"
        case "number":
            return "float64"
    return "string"

"""From a request's bytes to an object: parsed, of the right kind, its fields known and of the right type.

The order of complaints is the API server's: syntax, kind and version, types, then unknown and duplicate fields, which
are an error, a warning or nothing as `fieldValidation` says (Strict, Warn, Ignore). Unknown fields are dropped, also
from custom resources unless their schema keeps them. What a typed server would not write back (nulls, empty lists and
maps, false where absent means false) is left out of built-in kinds, so that a second apply changes nothing.
"""
import base64
import re
from typing import Any

from meshtls.lab.api import parsing, protobuf, schema, status, zeros
from meshtls.lab.api.field import quote
from meshtls.lab.api.quantities import FORM, quantity
from meshtls.lab.api.resources import Registry, Resource
from meshtls.lab.api.store import clone

LIMIT_BYTES = 3 * 1024 * 1024
_PLACE = re.compile(r"\[\d+\]")
_MICRO = {"renewTime", "acquireTime", "eventTime", "lastObservedTime"}


def parse(body: bytes, content_type: str, kind: str) -> dict[str, Any]:
    """JSON or YAML to an object. Raises ApiError 400 (or 413 over 3 MiB) in the API server's words."""
    if len(body) > LIMIT_BYTES:
        raise status.too_large(LIMIT_BYTES)
    if body.startswith(protobuf.MAGIC):
        return protobuf.decode(body)
    try:
        if "yaml" in content_type:
            value, twice = parsing.from_yaml(body)
        else:
            value, twice = parsing.from_json(body), []
    except parsing.Faulty as error:
        fault = str(error) if "yaml" in content_type else f"couldn't get version/kind; json parse error: {error}"
    else:
        value = {} if value is None else value
        if isinstance(value, dict):
            wrong = next((key for key in ("apiVersion", "kind") if not isinstance(value.get(key, ""), str)), "")
            if not wrong:
                return _noted(value, twice)
            fault = (f"couldn't get version/kind; json parse error: json: cannot unmarshal {parsing.kind_of(value[wrong])} into Go "
                     f"struct field .{wrong} of type string")
        else:
            fault = (f"couldn't get version/kind; json parse error: json: cannot unmarshal {parsing.kind_of(value)} into Go value of "
                     f"type {parsing.TYPE_META}")
    raise status.bad_request(f"the object provided is unrecognized (must be of type {kind}): {fault} ({_summary(body)})")


def _noted(value: dict[str, Any], twice: list[str]) -> dict[str, Any]:
    """An object of YAML remembers which lines of it say again what others have said."""
    if not twice:
        return value
    found = parsing.Repeated(value)
    found.lines_twice = tuple(twice)
    return found


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    if body[:1] == b"{":
        return body[:30].decode(errors="replace") + (" ..." if len(body) > 30 else "")
    return body[:30].hex() + (" ..." if len(body) > 30 else "")


def check_kind(obj: dict[str, Any], resource: Resource, version: str, registry: Registry, body: bytes) -> None:
    """The object's apiVersion and kind fit the path. Missing ones are filled in (built-in kinds only)."""
    wanted = resource.api_version(version)
    if not resource.custom:
        obj["apiVersion"], obj["kind"] = obj.get("apiVersion") or wanted, obj.get("kind") or resource.kind
    elif not obj.get("kind"):
        raise status.bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is "
                                 f"missing in '{body[:200].decode(errors='replace')}' ({_summary(body)})")
    given, kind = str(obj.get("apiVersion") or ""), str(obj["kind"])
    if not resource.custom and (given, kind) != (wanted, resource.kind):
        group, _, at = given.rpartition("/")
        known = registry.of_kind(group, kind.removesuffix("List"))
        if known is None or at not in known.versions:
            raise cannot(resource, at, f'no kind "{kind}" is registered for version "{given}" in scheme '
                         '"pkg/runtime/scheme.go:111"', kind)
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
          whole: bool = True, tree: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The object with known fields only, and the complaints about the others ('unknown field "a.b"'). `whole`: with
    everything that a typed server writes though nobody gave it; `tree`: complaints are those about a merged object."""
    walker = _Walker(resource, version, whole, tree)
    found = walker.object(schema.of(resource, version), obj, "", "" if resource.custom else resource.kind)
    complaints = walker.complaints
    if resource.custom:  # what is there twice is seen by the parser, before the schema
        complaints.sort(key=_rank)
    return found, complaints


def typed(obj: dict[str, Any], kind: str) -> dict[str, Any]:
    """Options: of no kind that is served, but with fields of the right types. Raises ApiError."""
    walker = _Walker(Resource("", ("v1",), "", kind, False), "v1", False, False)
    try:
        return walker.object(schema.model(f"V1{kind}"), obj, "", kind)
    except status.ApiError as error:
        raise status.bad_request(error.message.partition(f"cannot be handled as a {kind}: ")[2]) from None


def _rank(told: str) -> tuple[int, str]:
    """Twice there, unknown in the metadata, unknown elsewhere (by name)."""
    if told.startswith("unknown field "):
        return (1, "") if told.startswith('unknown field "metadata.') else (2, told)
    return 0, ""


def judge(complaints: list[str], level: str, resource: Resource, version: str) -> list[str]:
    """Warnings for complaints, or an error when they are strict."""
    if complaints and level == "Strict":
        raise cannot(resource, version, "strict decoding error: " + ", ".join(complaints))
    return [] if level == "Ignore" else [line.strip() for told in complaints
                                         for line in told.removeprefix("yaml: unmarshal errors:\n").splitlines()]


class _Walker:
    """Through an object beside its schema. `struct`: the Go type that holds a value, "" in custom resources, whose types
    are checked later."""

    def __init__(self, resource: Resource, version: str, whole: bool, tree: bool) -> None:
        self._resource, self._version, self._whole, self._tree = resource, version, whole, tree
        self.complaints: list[str] = []

    def object(self, node: dict[str, Any], obj: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        typed, inner, properties = "x-model" in node, node.get("additionalProperties"), node.get("properties") or {}
        keeps = node.get("x-kubernetes-preserve-unknown-fields") or inner is True or not (typed or properties or inner)
        embedded = ("apiVersion", "kind", "metadata") if node.get("x-kubernetes-embedded-resource") else ()
        found: dict[str, Any] = {}
        self._repeated(obj, path)
        for key, value in obj.items():
            at = parsing.joined(path, key)
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
            raise cannot(self._resource, self._version, _mismatch(node, value, struct, path.removeprefix("metadata.")
                                                                  if self._resource.custom else path, self._tree))
        if isinstance(value, str) and (fault := _fault(node, value, key)):
            raise cannot(self._resource, self._version, fault)
        return clone(value)

    def _map(self, node: dict[str, Any], value: dict[str, Any], path: str, struct: str) -> dict[str, Any]:
        inner = node["additionalProperties"]
        self._repeated(value, path)
        if inner.get("type") == "string" and struct:
            return {key: "" if item is None else self.value(inner, item, path, struct, key) for key, item in value.items()}
        return {key: self.value(inner, item, parsing.joined(path, key), struct, key) for key, item in value.items()}

    def _repeated(self, obj: dict[str, Any], path: str) -> None:
        if isinstance(obj, parsing.Repeated):
            self.complaints += [f"duplicate field {quote(parsing.joined(path, key))}" for key in obj.keys_twice]
            if obj.lines_twice:
                self.complaints.append("\n  ".join(("yaml: unmarshal errors:", *obj.lines_twice)))


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


def _fault(node: dict[str, Any], text: str, key: str) -> str:
    """"" or what is wrong with a text that stands for bytes or a time."""
    match node.get("format"):
        case "byte" if (place := _bad_base64(text)) is not None:
            return f"illegal base64 data at input byte {place}"
        case "date-time":
            return parsing.time_fault(text, micro=key in _MICRO)
    return ""


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


def _mismatch(node: dict[str, Any], value: Any, struct: str, path: str, tree: bool) -> str:
    """A value of the wrong type, as the decoder of JSON tells it, or of a tree that a strategic merge has made."""
    kind, wanted = parsing.kind_of(value), _go_type(node)
    if tree:
        held = {"array": "slice", "object": "map", "bool": "bool", "number": "int64"}.get(kind, kind)
        if "x-model" in node or wanted[0] in "[m":
            return f"cannot restore {'struct' if 'x-model' in node else 'slice' if wanted[0] == '[' else 'map'} from {held}"
        return f"cannot convert int64 to {wanted}" if kind == "number" and wanted == "string" else f"unrecognized type: {wanted}"
    told = f"number {value}" if kind == "number" and node.get("type") == "integer" else kind
    return f"json: cannot unmarshal {told} into Go struct field {struct}.{_PLACE.sub('', path)} of type {wanted}"


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

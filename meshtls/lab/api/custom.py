"""Custom resources against the schema of their definition: pruned and defaulted by `decode`, judged here.

Messages are those of the API server's OpenAPI validator. Rules (x-kubernetes-validations in CEL, or Istio's in Python)
are not asked when a value is absent, unknown, of the wrong type or too large; one more error then says so.
"""
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from meshtls.lab.api import cel
from meshtls.lab.api.field import OMITTED, FieldError, duplicate, forbidden, invalid, mistyped, required, shown, too_long, too_many, unsupported
from meshtls.lab.api.istio_rules import RULES, CannotConvert
from meshtls.lab.api.store import clone

Node = dict[str, Any]
_UNCHECKED = ("some validation rules were not checked because the object was invalid; correct the existing errors to "
              "complete validation")
_BLOCKING = {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany",
             "FieldValueTypeInvalid"}
_SIZES: dict[type, tuple[str, str, str]] = {
    str: ("minLength", "maxLength", "be at least {} chars long"),
    list: ("minItems", "maxItems", "have at least {} items"),
    dict: ("minProperties", "maxProperties", "have at least {} properties")}
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FORMATS = {
    "date-time": r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)", "date": r"\d{4}-\d\d-\d\d",
    "uuid": "[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
    "email": r"[^@\s]+@[^@\s]+", "byte": r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"}


def children(node: Node, value: Any, path: str, mapped: str = ".{}") -> Sequence[tuple[Node, Any, Any, str]]:
    """What a value holds of which the schema speaks: the part's schema, its key, itself and its path; `mapped` makes the
    paths of a map's values."""
    if isinstance(value, dict):
        known: Node = node.get("properties") or {}
        others: Any = node.get("additionalProperties")
        return [(known[key], key, item, f"{path}.{key}" if path else key) if key in known else
                (others, key, item, path + mapped.format(key))
                for key, item in value.items() if key in known or isinstance(others, dict)]
    if isinstance(value, list):
        return [(node.get("items") or {}, place, item, f"{path}[{place}]") for place, item in enumerate(value)]
    return ()


def apply_defaults(node: Node, value: Any) -> None:
    """Fill in the schema's defaults, in place; a null where none is allowed counts as absent when there is a
    default."""
    known: Node = node.get("properties") or {}
    for key, child in known.items() if isinstance(value, dict) else ():
        if "default" in child and (key not in value or (value[key] is None and not child.get("nullable"))):
            value[key] = clone(child["default"])
    for key in [key for key, item in value.items() if item is None] if isinstance(value, dict) else ():
        other = known.get(key, node.get("additionalProperties"))
        if isinstance(other, dict) and not other.get("nullable"):
            del value[key]
    for child, key, item, _ in children(node, value, ""):
        if key != "metadata":
            apply_defaults(child, item)


def validate(node: Node, obj: dict[str, Any], old: dict[str, Any] | None, only: str = "",
             before: tuple[FieldError, ...] = ()) -> list[FieldError]:
    """Everything wrong with an object after what was found `before`; `only` limits it to one top-level field (status).
    """
    root = {**node, "properties": {key: child for key, child in (node.get("properties") or {}).items()
                                   if key not in ("apiVersion", "kind", "metadata") and only in ("", key)}}
    shown_part = {key: value for key, value in obj.items() if key in root["properties"]}
    judged: Any = shown_part
    if only:  # alone: messages begin there
        root, judged = root["properties"].get(only) or {}, obj.get(only)
    errors = [*_schema(root, judged, ""), *_lists(root, judged, "")] if judged is not None else []
    errors = [msgspec.structs.replace(error, path=_join(only, error.path)) if only and error.path != "<nil>" else error for error in errors]
    if not _has_rules(node):
        return errors
    if any(error.reason in _BLOCKING for error in [*before, *errors]):
        return [*errors, FieldError("<nil>", "FieldValueInvalid", None, _UNCHECKED)]
    return [*errors, *_rules(root, judged if only else obj, (old or {}).get(only) if only else old, only)]


def _schema(node: Node, value: Any, path: str) -> Iterator[FieldError]:
    kinds = _types(node)
    actual = _type_of(value)
    if value is None and node.get("nullable"):
        return
    if kinds and actual not in kinds and not (actual == "integer" and "number" in kinds):
        yield mistyped(path, actual, f'{path} in body must be of type {",".join(kinds)}: "{actual}"')
        if "enum" in node:
            yield unsupported(path, value, [item if isinstance(item, str) else shown(item) for item in node["enum"]])
        return
    if "enum" in node and value not in node["enum"]:
        yield unsupported(path, value, [item if isinstance(item, str) else shown(item) for item in node["enum"]])
    if isinstance(value, (str, list, dict)):
        yield from _size(node, value, path)
    if isinstance(value, str):
        yield from _text(node, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(node, value, path)
    for child, _, item, at in children(node, value, path):
        yield from _schema(child, item, at)
    yield from _combined(node, value, path)


def _size(node: Node, value: Any, path: str) -> Iterator[FieldError]:
    least, most, told = _SIZES[type(value)]
    for key in node.get("required") or () if isinstance(value, dict) else ():
        if key not in value:
            yield required(_join(path, key))
    if len(value) < node.get(least, 0):
        shown_value = value if isinstance(value, str) else len(value)
        yield invalid(path, shown_value, f"{path} in body should {told.format(node[least])}")
    if most in node and len(value) > node[most]:
        yield too_long(path, node[most]) if isinstance(value, str) else too_many(path, len(value), node[most])


def _combined(node: Node, value: Any, path: str) -> Iterator[FieldError]:
    wrong = [error for branch in node.get("allOf") or () for error in _schema(branch, value, path)]
    yield from wrong
    if wrong:
        yield invalid("<nil>", "", f'"{path}" must validate all the schemas (allOf)')
    for name in ("oneOf", "anyOf"):
        if not node.get(name):
            continue
        held = sum(not list(_schema(branch, value, path)) for branch in node[name])
        if name == "anyOf" and not held:
            yield invalid("<nil>", "", f'"{path}" must validate at least one schema (anyOf)')
        if name == "oneOf" and held != 1:
            found = f"Found {held} valid alternatives" if held else "Found none valid"
            yield invalid("<nil>", "", f'"{path}" must validate one and only one schema (oneOf). {found}')
    if "not" in node and not list(_schema(node["not"], value, path)):
        yield invalid("<nil>", "", f'"{path}" must not validate the schema (not)')


def _text(node: Node, value: str, path: str) -> Iterator[FieldError]:
    if "pattern" in node:
        try:
            fine = re.search(node["pattern"], value) is not None
        except re.error:
            fine = True
        if not fine:
            yield invalid(path, value, f"{path} in body should match '{node['pattern']}'")
    form = node.get("format")
    if form in _FORMATS and not re.fullmatch(_FORMATS[form], value):
        yield mistyped(path, value, f'{path} in body must be of type {form}: "{value}"')


def _number(node: Node, value: float, path: str) -> Iterator[FieldError]:
    if "minimum" in node and (value < node["minimum"] or (node.get("exclusiveMinimum") and value == node["minimum"])):
        told = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
        yield invalid(path, value, f"{path} in body should be {told} {shown(node['minimum'])}")
    if "multipleOf" in node and Decimal(str(value)) % Decimal(str(node["multipleOf"])):
        yield invalid(path, value, f"{path} in body should be a multiple of {shown(node['multipleOf'])}")
    bits = {"int32": 31, "int64": 63}.get(node.get("format", ""))
    if bits and isinstance(value, int) and not -(2 ** bits) <= value < 2 ** bits:
        yield invalid("<nil>", "", f"Checked value must be of type integer with format {node['format']} in {path}")
    if "maximum" in node and (value > node["maximum"] or (node.get("exclusiveMaximum") and value == node["maximum"])):
        told = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
        yield invalid(path, value, f"{path} in body should be {told} {shown(node['maximum'])}")


def _lists(node: Node, value: Any, path: str) -> Iterator[FieldError]:
    """Lists that are sets or maps hold nothing twice."""
    keys, seen = node.get("x-kubernetes-list-map-keys"), []
    for child, _, item, at in children(node, value, path):
        if isinstance(value, list) and node.get("x-kubernetes-list-type") in ("map", "set"):
            mark = {key: item.get(key) for key in keys if key in item} if keys and isinstance(item, dict) else item
            if mark in seen:
                yield duplicate(at, mark)
            seen.append(mark)
        yield from _lists(child, item, at)


def _rules(node: Node, value: Any, old: Any, path: str) -> Iterator[FieldError]:
    told = OMITTED if isinstance(value, (dict, list)) else value
    for name in node.get("x-rules") or ():
        for holds, message in RULES[name]:
            try:
                if not holds(value):
                    yield invalid(path, told, message)
            except CannotConvert as error:
                yield invalid(path, _type_of(value), f"{error} evaluating rule: {message}")
    for rule in node.get("x-kubernetes-validations") or ():
        try:
            verdict = cel.rule(rule, value, old)
        except cel.CelError as error:
            yield invalid(path, _type_of(value), f"{error} evaluating rule: {rule.get('message') or rule['rule']}")
            continue
        if verdict is not None:
            at = _join(path, rule["fieldPath"].lstrip(".")) if rule.get("fieldPath") else path
            yield {"FieldValueRequired": required(at, verdict), "FieldValueForbidden": forbidden(at, verdict),
                   "FieldValueDuplicate": duplicate(at, told)}.get(rule.get("reason"), invalid(at, told, verdict))
    for child, key, item, at in children(node, value, path, "[{}]"):
        if key != "metadata":
            yield from _rules(child, item, old.get(key) if isinstance(old, dict) else None, at)


def _has_rules(node: Node) -> bool:
    if node.get("x-rules") or node.get("x-kubernetes-validations"):
        return True
    parts = [*(node.get("properties") or {}).values(), node.get("items"), node.get("additionalProperties")]
    return any(_has_rules(part) for part in parts if isinstance(part, dict))


def _types(node: Node) -> list[str]:
    if node.get("x-kubernetes-int-or-string"):
        return ["integer", "string"]
    return [node["type"]] if node.get("type") else []


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    return {float: "number", str: "string", list: "array"}.get(type(value), "object")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key

"""What is wrong with one field, in the API server's words.

A FieldError names a path, one of nine faults, the bad value and a detail; `str` gives the sentence that kubectl prints.
Values are written as Go writes them: text quoted, lists and objects as JSON.
"""
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

IMMUTABLE = "field is immutable"
OMITTED = object()
"""Stands for a value that is too large to be told (objects under a CEL rule)."""

_WORDS = {
    "FieldValueRequired": "Required value", "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueDuplicate": "Duplicate value", "FieldValueNotFound": "Not found", "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long", "FieldValueTooMany": "Too many", "FieldValueTypeInvalid": "Invalid value",
    "InternalError": "Internal error"}
_VALUELESS = {"FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "InternalError"}


class FieldError(msgspec.Struct, frozen=True):
    """`reason` is the cause's reason in a Status; `path` is dotted, "<nil>" for no field."""

    path: str
    reason: str
    value: Any = OMITTED
    detail: str = ""

    @property
    def body(self) -> str:
        text = _WORDS[self.reason]
        if self.reason not in _VALUELESS and self.value is not OMITTED:
            text += f": {shown(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.path}: {self.body}"


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(path, "FieldValueRequired", detail=detail)


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(path, "FieldValueInvalid", value, detail)


def mistyped(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(path, "FieldValueTypeInvalid", value, detail)


def unsupported(path: str, value: Any, known: tuple[str, ...] | list[str]) -> FieldError:
    return FieldError(path, "FieldValueNotSupported", value,
                      "supported values: " + ", ".join(quote(str(item)) for item in known))


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(path, "FieldValueDuplicate", value)


def missing(path: str, value: Any) -> FieldError:
    return FieldError(path, "FieldValueNotFound", value)


def forbidden(path: str, detail: str) -> FieldError:
    return FieldError(path, "FieldValueForbidden", detail=detail)


def too_long(path: str, limit: int, unit: str = "byte") -> FieldError:
    return FieldError(path, "FieldValueTooLong",
                      detail=f"may not be more than {limit} {unit}{'' if limit == 1 else 's'}")


def too_many(path: str, count: int, limit: int) -> FieldError:
    return FieldError(path, "FieldValueTooMany", count, f"must have at most {limit} item{'' if limit == 1 else 's'}")


def told(path: str, value: Any, check: Callable[[Any], list[str]]) -> Iterator[FieldError]:
    """What a check of a name or number says of a value."""
    return (invalid(path, value, text) for text in check(value))


def labels(path: str, given: dict[str, str]) -> Iterator[FieldError]:
    """What is wrong with labels, or with a selector by them."""
    for key, value in given.items():
        yield from told(path, key, qualified)
        yield from told(path, value, label_value)


def shown(value: Any) -> str:
    """A value as it stands in a message."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    in_order = isinstance(value, dict) and any(key[:1].isupper() for key in value)  # one of the server's own structures
    return json.dumps(value, separators=(",", ":"), sort_keys=not in_order, ensure_ascii=False)


def quote(text: str) -> str:
    """Text as Go's %q writes it."""
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else f"\\x{ord(char):02x}" if char < "\x80"
                                                else f"\\u{ord(char):04x}") for char in text) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f",
            "\v": "\\v"}


# the forms of names: each check gives what is wrong with a value

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"


def _form(limit: int, form: str, what: str, *examples: str, unit: str = "characters") -> Callable[[str], list[str]]:
    told = " or ".join(f"'{example}', " for example in examples)

    def check(value: str) -> list[str]:
        found = [f"must be no more than {limit} {unit}"] if len(value) > limit else []
        return found if re.fullmatch(form, value) else [
            *found, f"{what} (e.g. {told}regex used for validation is '{form}')"]
    return check


_label = _form(63, _LABEL, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
               "start and end with an alphanumeric character", "my-name", "123-abc")
subdomain_1123 = _form(253, _SUBDOMAIN, "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
                       "'-' or '.', and must start and end with an alphanumeric character", "example.com")
search_domain = _form(253, r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*", "a lowercase RFC 1123 subdomain "
                      "must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric "
                      "character", "example.com")
wildcard = _form(253, r"\*\." + _SUBDOMAIN, "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which "
                 "must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character", "*.example.com")
label_1035 = _form(63, "[a-z]([-a-z0-9]*[a-z0-9])?", "a DNS-1035 label must consist of lower case alphanumeric characters "
                   "or '-', start with an alphabetic character, and end with an alphanumeric character", "my-name", "abc-123")
label_value = _form(63, f"({_QUALIFIED})?", "a valid label must be an empty string or consist of alphanumeric characters, "
                    "'-', '_' or '.', and must start and end with an alphanumeric character",
                    "MyValue", "my_value", "12345", unit="bytes")
_key_name = _form(63, _QUALIFIED, "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                  "alphanumeric character", "MyName", "my.name", "123-abc", unit="bytes")
_key_of_config = _form(253, "[-._a-zA-Z0-9]+", "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                       "key.name", "KEY_NAME", "key-name")


def label_1123(value: str) -> list[str]:
    return ["must not contain dots"] if "." in value and not subdomain_1123(value) else _label(value)


def path_segment(value: str) -> list[str]:
    """Names of RBAC objects: anything that can stand in a path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in ("/", "%") if char in value]


def qualified(value: str) -> list[str]:
    """Label and annotation keys, finalizers: [prefix/]name."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        return [f"a valid label key {_key_name('')[0]} with an optional DNS subdomain prefix and '/' (e.g. "
                "'example.com/MyName')"]
    before = (subdomain_1123(prefix) if prefix else ["must be non-empty"]) if slash else []
    return [*(f"prefix part {text}" for text in before),
            *(f"name part {text}" for text in [*([] if name else ["must be non-empty"]), *_key_name(name)])]


STANDARD_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def finalizer(value: str) -> list[str]:
    fine = "/" in value or value in STANDARD_FINALIZERS
    return [] if fine else ["name is neither a standard finalizer name nor is it fully qualified"]


def env_name(value: str) -> list[str]:
    """Environment variables: since 1.32 any printable ASCII except '='."""
    if not value:
        return ["environment variable name must be non-empty"]
    fine = all(" " <= char <= "~" and char != "=" for char in value)
    return [] if fine else ["a valid environment variable name must consist only of printable ASCII characters other "
                            "than '='"]


def config_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    dots = [f"must not be '{value}'"] if value in (".", "..") else ["must not start with '..'"] if value[:2] == ".." else []
    return _key_of_config(value) + dots


def address(value: Any) -> list[str]:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def cidr(value: str) -> list[str]:
    try:
        ipaddress.ip_network(value, strict=False)
        fine = "/" in value
    except ValueError:
        fine = False
    return [] if fine else ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]


def outside(value: str) -> list[str]:
    """Addresses of other hosts."""
    inside = not address(value) and ipaddress.ip_address(value).is_loopback
    return ["may not be in the loopback range (127.0.0.0/8, ::1/128)"] if inside else []


def share(value: Any) -> list[str]:
    """A number or a percentage, as rolling updates and budgets have it."""
    if isinstance(value, int):
        return ["must be greater than or equal to 0"] if value < 0 else []
    if not re.fullmatch("[0-9]+%", value):
        return ["a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used "
                "for validation is '[0-9]+%')"]
    return ["must not be greater than 100%"] if int(value[:-1]) > 100 else []


def port_name(value: str) -> list[str]:
    """Names of container ports (IANA service names)."""
    found = ["must be no more than 15 characters"] if len(value) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", value):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        found.append("must contain at least one letter (a-z)")
    if "--" in value:
        found.append("must not contain consecutive hyphens")
    if value[:1] == "-" or value[-1:] == "-":
        found.append("must not begin or end with a hyphen")
    return found


def port(value: Any) -> list[str]:
    """A port's number or its name."""
    return port_number(value) if isinstance(value, int) else port_name(value)


def port_number(value: Any) -> list[str]:
    return [] if isinstance(value, int) and 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]

"""Label and field selectors: parsed as kubectl writes them, told wrong in the API server's words, and matched."""
import re
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import field, status
from meshtls.lab.api.cells import find

Object = dict[str, Any]
Labels = dict[str, str]
Match = Callable[[Object], bool]

_TOKEN = re.compile(r"\s*(?:(!=|==|=|!|>|<|\(|\)|,)|([^\s=!<>(),]+))")
_OPERATORS = "in, notin, =, ==, !=, gt, lt"
_END = ""


class _Parser:
    """The grammar of labels.Parse: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`."""

    def __init__(self, text: str) -> None:
        self._tokens = [symbol or word for symbol, word in _TOKEN.findall(text)]
        self._place = 0

    def peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else _END

    def next(self) -> str:
        token = self.peek()
        self._place += 1
        return token

    @staticmethod
    def word(token: str) -> bool:
        return bool(token) and token[0] not in "=!<>(),"

    def requirements(self) -> list[tuple[str, str, list[str]]]:
        found: list[tuple[str, str, list[str]]] = []
        expected = "!, identifier, or 'end of string'"
        while self.peek() != _END or found:
            if not (self.word(self.peek()) or self.peek() == "!"):
                raise _bad(f"found '{self.peek()}', expected: {expected}")
            found.append(self._requirement())
            token, expected = self.next(), "identifier after ','"
            if token == _END:
                break
            if token != ",":
                raise _bad(f"found '{token}', expected: ',' or 'end of string'")
        return found

    def _requirement(self) -> tuple[str, str, list[str]]:
        token = self.next()
        absent = token == "!"
        key = self.next() if absent else token
        if not self.word(key):
            raise _bad(f"unable to parse requirement: found '{key}', expected: identifier")
        if told := field.qualified(key):
            raise _bad(f"unable to parse requirement: <nil>: Invalid value: {field.quote(key)}: {'; '.join(told)}")
        if absent or self.peek() in (_END, ","):
            return key, "absent" if absent else "present", []
        operator = self.next()
        if operator in ("in", "notin"):
            return key, operator, self._values(key)
        if operator not in ("=", "==", "!=", ">", "<"):
            raise _bad(f"unable to parse requirement: found '{operator}', expected: {_OPERATORS}")
        value = "" if self.peek() in (_END, ",") else self.next()
        if value and not self.word(value):
            raise _bad(f"unable to parse requirement: found '{value}', expected: identifier")
        if operator in "<>" and not re.fullmatch(r"[-+]?\d+", value):
            raise _bad(f"unable to parse requirement: values[0]: Invalid value: {field.quote(value)}: for 'Gt', 'Lt' "
                       "operators, the value must be an integer")
        return key, {"==": "="}.get(operator, operator), [self._checked(key, value)]

    def _values(self, key: str) -> list[str]:
        if (token := self.next()) != "(":
            raise _bad(f"unable to parse requirement: found '{token}' expected: '('")
        values: list[str] = []
        expecting = True
        while (token := self.next()) != ")":
            if token == ",":
                if expecting:
                    values.append("")
                expecting = True
            elif self.word(token) and expecting:
                values.append(self._checked(key, token))
                expecting = False
            else:
                raise _bad(f"unable to parse requirement: found '{token}', expected: ',' or ')'")
        return [*values, ""] if expecting else values

    @staticmethod
    def _checked(key: str, value: str) -> str:
        if told := field.label_value(value):
            raise _bad(f"unable to parse requirement: values[0][{key}]: Invalid value: {field.quote(value)}: {'; '.join(told)}")
        return value


def _bad(message: str) -> status.ApiError:
    return status.bad_request(message)


def labels(text: str) -> Match | None:
    """A predicate on objects for a label selector; None when everything matches. Raises ApiError 400."""
    if not text.strip():
        return None
    requirements = _Parser(text).requirements()
    return lambda obj: _hold(requirements, (obj.get("metadata") or {}).get("labels") or {})


def _hold(requirements: list[tuple[str, str, list[str]]], held: Labels) -> bool:
    return all(_holds(key, operator, values, held) for key, operator, values in requirements)


def _holds(key: str, operator: str, values: list[str], held: Labels) -> bool:
    match operator:
        case "=" | "in":
            return key in held and held[key] in values
        case "!=" | "notin":
            return held.get(key, None) not in values
        case "present":
            return key in held
        case "absent":
            return key not in held
    try:
        left, right = int(held[key]), int(values[0])
    except (LookupError, ValueError):
        return False
    return left > right if operator == ">" else left < right


def selected(selector: Object | None, held: Labels) -> bool:
    """Does a LabelSelector object match (or a node selector's term)? None matches nothing, {} everything."""
    if selector is None:
        return False
    if not (selector.get("matchLabels") or {}).items() <= held.items():
        return False
    words = {"In": "in", "NotIn": "notin", "Exists": "present", "DoesNotExist": "absent", "Gt": ">", "Lt": "<"}
    return all(_holds(term["key"], words.get(term["operator"], "in"), term.get("values") or [], held)
               for term in selector.get("matchExpressions") or ())


FIELDS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
            "spec.host", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"),
    "Event": ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
              "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
              "reportingComponent", "source", "type"), "Namespace": ("status.phase", "name"), "Node": ("spec.unschedulable",),
    "Secret": ("type",), "Job": ("status.successful",), "ReplicationController": ("status.replicas",),
    "Service": ("spec.clusterIP", "spec.type")}
"""What may be selected besides metadata.name and metadata.namespace."""


def fields(text: str, kind: str, custom: bool = False) -> Match | None:
    """A predicate for a field selector; None when everything matches. Raises ApiError 400 for fields that cannot be
    selected."""
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        found = re.match(r"(.*?)(!=|==|=)(.*)$", part)
        if found is None:
            raise _bad(f"invalid selector: '{text}'; can't understand '{part}'")
        if wrong := re.search(r"\\[^\\,=]", found[3]):
            raise _bad(f"invalid field selector: invalid escape sequence: {wrong[0]}")
        if "=" in re.sub(r"\\.", "", found[3]):
            raise _bad("invalid field selector: unescaped character in value: 61")
        terms.append((found[1], found[2] != "!=", re.sub(r"\\(.)", r"\1", found[3])))
    for name, _, _ in terms:
        if name not in ("metadata.name", "metadata.namespace", *FIELDS.get(kind, ())):
            if kind == "Job" and not custom:
                raise _bad(f"field label {field.quote(name)} not supported for Job")
            raise _bad(f"field label not supported: {name}" if custom or kind in FIELDS else
                       f'"{name}" is not a known field selector: only "metadata.name", "metadata.namespace"')
    if not terms:
        return None
    return lambda obj: all((_value(obj, name) == value) is equal for name, equal, value in terms)


def _value(obj: Any, name: str) -> str:
    if name == "source":
        return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
    name = {"name": "metadata.name", "spec.host": "spec.nodeName"}.get(name, name)
    if name == "status.successful":
        return str((obj.get("status") or {}).get("succeeded", 0))
    found = find(obj, name)
    if isinstance(found, bool) or found is None:
        return str(found or False).lower() if name in ("spec.hostNetwork", "spec.unschedulable") else ""
    return str(found)


def named(text: str) -> str:
    """The one name that a field selector asks for, "" if it does not."""
    found = re.search(r"(?:^|,)metadata\.name==?([^,]+)(?:,|$)", text)
    return found[1] if found else ""

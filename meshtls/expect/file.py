"""The file of expectations: its types, from which its schema is made, and the reading of it with line numbers.

    apiVersion: meshtls.dev/v1
    kind: Expectations
    calls:
    - from: shop/*                       # NAMESPACE/NAME or KIND/NAMESPACE/NAME, each part may hold * and ?
      to: Service/payments/gateway       # a Service; a workload: its pods' own addresses
      port: 80                           # number or name; without it, every port
      must: MTLS
      except:
      - {from: CronJob/shop/report, owner: team-shop, reason: gets a sidecar in spring, until: 2027-03-31}
    modes:
    - workloads: payments/*
      mode: STRICT
      except:
      - {workload: "Deployment/payments/legacy:8080", owner: team-payments, until: 2027-01-31}

Nothing is guessed: an unknown field, a pattern without namespace, the same expectation twice, or a file that expects nothing is an
error with its line. An exception has an owner and a last day, or it is none.
"""

import datetime
import re
from typing import Annotated, Any, Literal

import msgspec
import yaml

from meshtls.errors import InputError
from meshtls.model.marks import Marks, read

Must = Literal["MTLS", "PLAINTEXT", "REFUSED", "WORKS", "BREAKS"]
Mode = Literal["STRICT", "PERMISSIVE", "DISABLE", "NONE"]
_PART = r"[A-Za-z0-9_.*?-]+"
Pattern = Annotated[str, msgspec.Meta(pattern=rf"^({_PART}/)?{_PART}/{_PART}$", description="NAMESPACE/NAME or KIND/NAMESPACE/NAME; * and ? stand for any text and any character of a part")]
Target = Annotated[str, msgspec.Meta(pattern=rf"^({_PART}/)?{_PART}/{_PART}(:[A-Za-z0-9-]+)?$", description="a pattern; :PORT at its end is short for port")]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
DOCS = "see docs/expectations.md"


class Exception_(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers for what need not hold yet, and until which day (which is the last one)."""

    owner: Text
    until: datetime.date
    reason: str = ""

    def ended(self, today: datetime.date) -> bool:
        return self.until < today


class CallException(Exception_, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Calls that an expectation leaves out; what is not said is any."""

    from_: Pattern = "*/*"
    to: Target | None = None
    port: Number | Text | None = None


class ModeException(Exception_, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Workloads, or one port of them, that an expectation leaves out."""

    workload: Target
    port: Number | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from", "except_": "except"}):
    """What must become of every call from one of these workloads to one of these ports."""

    from_: Pattern
    to: Target
    port: Number | Text | None = None
    must: Must
    except_: tuple[CallException, ...] = ()

    @property
    def says(self) -> str:
        return f"{self.from_} -> {self.to}{f':{self.port}' if self.port else ''}"


class Modes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"except_": "except"}):
    """What every port of these workloads must enforce, or one port of each."""

    workloads: Target
    port: Number | None = None
    mode: Mode
    except_: tuple[ModeException, ...] = ()

    @property
    def says(self) -> str:
        return f"mode of {self.workloads}{f':{self.port}' if self.port else ''}"


class Expectations(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What must hold, version 1: fields may be added, never removed or given another meaning."""

    api_version: Literal["meshtls.dev/v1"]
    kind: Literal["Expectations"]
    calls: tuple[Call, ...] = ()
    modes: tuple[Modes, ...] = ()


class Expected(msgspec.Struct, frozen=True):
    """The expectations of one file, each with where it is written."""

    file: str
    document: Expectations
    marks: Marks

    def at(self, path: str) -> tuple[int, int]:
        """(line, column), 1-based, of what stands at `path`, such as `$.calls[0].except[1]`."""
        return self.marks.get(path, (0, 0))


def parse(text: str, file: str) -> Expected:
    """The expectations that `text` writes. Raises InputError with the line of what is wrong."""
    try:
        plain, marks = read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"broken YAML: {error.problem or error.context}", file=file, line=mark.line + 1 if mark else 0,
                         column=mark.column + 1 if mark else 0) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"broken YAML: {' '.join(str(error).split())[:200]}", file=file) from error

    def wrong(path: str, says: str, hint: str = DOCS) -> InputError:
        line, column = marks.get(path) or marks.get("$") or (0, 0)
        return InputError(says, hint, file=file, line=line, column=column)

    if not isinstance(plain, dict):
        raise wrong("$", "no expectations: not a mapping with apiVersion, kind, calls and modes")
    for path, entry in _entries(plain):
        for name in ("to", "workloads", "workload"):
            pattern, colon, port = entry[name].partition(":") if isinstance(entry.get(name), str) else ("", "", "")
            if colon and "port" in entry:
                raise wrong(f"{path}.{name}", f"{entry[name]!r} names a port, and port is given besides", "write one of them")
            if colon and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", port, re.ASCII):
                raise wrong(f"{path}.{name}", f"{port[:20]!r} is no port", "write its number or its name")
            if colon:
                entry |= {name: pattern, "port": int(port) if port.isdecimal() and len(port) < 6 else port}
    try:
        document = msgspec.convert(plain, Expectations)
    except msgspec.ValidationError as error:
        raise wrong(*_told(str(error))) from error
    seen: dict[str, str] = {}
    for path, each in listed(document):
        if each.says in seen:
            raise wrong(path, f"{each.says} is expected twice", f"the first is in line {marks[seen[each.says]][0]}")
        if isinstance(each, Call) and each.to.count("/") == 2 and {"*", "?"} & set(each.to.partition("/")[0]):
            raise wrong(f"{path}.to", f"{each.to!r} leaves open whether a Service or a workload is called", "write its kind")
        seen[each.says] = path
    if not seen:
        raise wrong("$", "nothing is expected: there are neither calls nor modes")
    return Expected(file, document, marks)


def listed(document: Expectations) -> list[tuple[str, Call | Modes]]:
    """Each expectation with its path, in the order in which they are written."""
    return [(f"$.calls[{i}]", c) for i, c in enumerate(document.calls)] + [(f"$.modes[{i}]", m) for i, m in enumerate(document.modes)]


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://meshtls.dev/schemas/expectations.schema.json",
            "title": "What must hold in a mesh", **msgspec.json.schema(Expectations)}


def _entries(plain: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every mapping that may hold a pattern, with its path."""
    found = []
    for name in ("calls", "modes"):
        for i, entry in enumerate(plain[name] if isinstance(plain.get(name), list) else ()):
            if isinstance(entry, dict):
                found.append((f"$.{name}[{i}]", entry))
                excepted = entry.get("except")
                found += [(f"$.{name}[{i}].except[{j}]", e) for j, e in enumerate(excepted if isinstance(excepted, list) else ()) if isinstance(e, dict)]
    return found


_HINTS = {"must": "one of MTLS, PLAINTEXT, REFUSED, WORKS, BREAKS", "mode": "one of STRICT, PERMISSIVE, DISABLE, NONE",
          "until": "a day such as 2027-01-31", "from": "write NAMESPACE/NAME or KIND/NAMESPACE/NAME; both may hold *"}  # fmt: skip
_HINTS |= dict.fromkeys(("to", "workloads", "workload"), _HINTS["from"])


def _told(error: str) -> tuple[str, str, str]:
    """(path, what is wrong, hint) of what the decoder says."""
    says, _, path = error.partition(" - at `")
    path = path.rstrip("`") or "$"
    if unknown := re.search(r"unknown field `(.*)`", says):
        return f"{path}.{unknown[1]}", f"unknown field {unknown[1]!r}", DOCS
    if missing := re.search(r"missing required field `(.*)`", says):
        return path, f"lacks {missing[1]!r}", _HINTS.get(missing[1], DOCS)
    name = path.rpartition(".")[2]
    if "matching regex" in says:
        says = "no such pattern"
    return path, f"{name}: {says[:1].lower()}{says[1:]}", _HINTS.get(name, DOCS)

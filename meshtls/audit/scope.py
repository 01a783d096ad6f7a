"""Which findings the user asked for: those that concern some namespaces, and objects with some labels.

A finding concerns a namespace if its subject lives there, or if it is about calls into it. What is about the whole mesh
(its configuration, the root namespace) concerns every namespace.
"""

import re
from collections.abc import Collection

from meshtls.audit.rule import Flaw
from meshtls.errors import InputError
from meshtls.model.mesh import Mesh

_TERM = re.compile(r"\s*(!)?\s*([A-Za-z0-9][-\w./]*)\s*(?:(==|=|!=)\s*([-\w.]*))?\s*")


class Scope:
    """The filter, as a value with one question."""

    def __init__(self, mesh: Mesh, namespaces: Collection[str] | None, selector: str = "") -> None:
        self._root = mesh.root
        self._namespaces = namespaces
        self._terms = terms(selector)
        self._labels = {}
        if self._terms:
            self._labels = {obj.ref: obj.labels for obj in mesh.objects()}
            self._labels |= {w.ref: w.faces[0].metadata.labels for w in mesh.workloads if w.faces}

    def holds(self, flaw: Flaw) -> bool:
        """Was this finding asked for?"""
        if self._terms and not all(_fits(term, self._labels.get(flaw.subject, {})) for term in self._terms):
            return False
        if self._namespaces is None:
            return True
        parts = flaw.subject.split("/")
        home = parts[1] if len(parts) == 3 or parts[0] == "Namespace" else ""
        if home in self._namespaces or any(ns in self._namespaces for ns in flaw.affects):
            return True
        return not flaw.affects and home in ("", self._root)


def terms(selector: str) -> list[tuple[str, str, str]]:
    """(key, operator, value) of each part of `app=web,tier!=db,canary,!old`. Operators: =, !=, exists, absent."""
    found = []
    for part in selector.split(",") if selector else []:
        match = _TERM.fullmatch(part)
        if match is None or (match[1] and match[3]):
            raise InputError(f"{part!r} is no label selector", "write key=value, key!=value, key or !key, joined by commas")
        operator = {"==": "=", "=": "=", "!=": "!="}.get(match[3] or "", "absent" if match[1] else "exists")
        found.append((match[2], operator, match[4] or ""))
    return found


def _fits(term: tuple[str, str, str], labels: dict[str, str]) -> bool:
    key, operator, value = term
    match operator:
        case "=":
            return labels.get(key) == value
        case "!=":
            return labels.get(key) != value
        case "exists":
            return key in labels
        case _:
            return key not in labels

"""Which findings the user asked for: those that concern some namespaces, and objects with some labels.

A finding concerns a namespace if its subject lives there, or if it is about calls into it. What is about the whole mesh
(its configuration, the root namespace) concerns every namespace.
"""

from collections.abc import Collection

from meshtls.audit.rule import Flaw
from meshtls.model.mesh import Mesh
from meshtls.policy.select import matches
from meshtls.policy.select import selector as parse


class Scope:
    """The filter, as a value with one question."""

    def __init__(self, mesh: Mesh, namespaces: Collection[str] | None, selector: str = "") -> None:
        self._root = mesh.root
        self._namespaces = namespaces
        self._selector = parse(selector)
        self._labels = {}
        if self._selector.match_expressions:
            self._labels = {obj.ref: obj.labels for obj in mesh.objects()}
            self._labels |= {w.ref: w.faces[0].metadata.labels for w in mesh.workloads if w.faces}

    def holds(self, flaw: Flaw) -> bool:
        """Was this finding asked for?"""
        if not matches(self._selector, self._labels.get(flaw.subject, {})):
            return False
        if self._namespaces is None:
            return True
        parts = flaw.subject.split("/")
        home = parts[1] if len(parts) == 3 or parts[0] == "Namespace" else ""
        if home in self._namespaces or any(ns in self._namespaces for ns in flaw.affects):
            return True
        return not flaw.affects and home in ("", self._root)

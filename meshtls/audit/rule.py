"""What a rule is: one flaw, what it needs to know, and the function that finds it.

A rule lives in `rules/`, one flaw a file, named for the flaw. It has a code that is never reused, cites the entries of
the catalogue of breakages that it covers (docs/audit.md), and yields `Flaw`s: what is wrong with which object, why, and
the exact remedy. Code, severity and confidence are the rule's, unless a flaw says otherwise.
"""

from collections.abc import Callable, Iterator

import msgspec

from meshtls.audit.facts import Facts
from meshtls.model.check import Confidence, Severity

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod")


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """One bad answer. `affects` are the namespaces whose calls it concerns besides the subject's own."""

    subject: str
    message: str
    path: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    fix: str = ""
    severity: Severity | None = None
    catalogue: tuple[str, ...] = ()
    confidence: Confidence | None = None
    affects: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`about` are the kinds whose objects can have the flaw: where the input has none of them, there is no question to
    answer. `needs` are kinds without which the answer would be a guess."""

    code: str
    title: str
    severity: Severity
    catalogue: tuple[str, ...]
    about: tuple[str, ...]
    find: Callable[[Facts], Iterator[Flaw]]
    needs: tuple[str, ...] = ()
    confidence: Confidence = Confidence.SOURCE

    @property
    def group(self) -> str:
        """The heading under which its check is listed."""
        return {"1": "server side", "2": "client side", "3": "workloads and injection", "4": "certificates"}[self.code[2]]

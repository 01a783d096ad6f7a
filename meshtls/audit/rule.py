"""What a rule is: one flaw, what it needs to know, and the function that finds it.

A rule lives in `rules/`, one flaw a file, named for the flaw. It has a code that is never reused, cites the entries of
the catalogue of breakages that it covers (docs/audit.md), and yields `Flaw`s: what is wrong with which object, why, and
the exact remedy. Code and severity are the rule's, unless a flaw says otherwise; how sure a finding is follows from the
entries it cites (meshtls.audit.catalogue), and from the rule where it goes by a hint. Where the input lacks what an answer
depends on, a rule yields `Unsure` instead: without a flaw the question is then skipped, never passed.
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


class Unsure(msgspec.Struct, frozen=True):
    """Why a part of the question has no answer."""

    reason: str


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`about` are the kinds whose objects can have the flaw: where the input has none of them, there is no question to
    answer. `needs` are kinds without which the answer would be a guess, flaw or not. `reads` are kinds that can add a flaw, or
    excuse one: where they could not be read, what was found stands, and nothing found is no pass."""

    code: str
    title: str
    severity: Severity
    catalogue: tuple[str, ...]
    about: tuple[str, ...]
    find: Callable[[Facts], Iterator[Flaw | Unsure]]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    confidence: Confidence | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every kind without which nothing found is no pass.

        Workloads come from all their kinds; what is injected is said by namespaces and webhooks; policies depend on the root
        namespace, which the mesh configuration names.
        """
        kinds = dict.fromkeys((*self.about, *self.needs, *self.reads))
        if not kinds.keys().isdisjoint(WORKLOADS):
            kinds |= dict.fromkeys(WORKLOADS)
        if "Namespace" in kinds:
            kinds["MutatingWebhookConfiguration"] = None
        if "PeerAuthentication" in kinds:
            kinds["ConfigMap"] = None
        return tuple(kinds)

    @property
    def group(self) -> str:
        """The heading under which its check is listed."""
        return {"1": "server side", "2": "client side", "3": "workloads and injection", "4": "certificates"}[self.code[2]]

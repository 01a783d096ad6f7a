"""The annotation `sidecar.istio.io/inject: "true"` in a namespace without a label does nothing: only the label does."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

KEY = "sidecar.istio.io/inject"


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        meta = facts.face(w).metadata
        if meta.annotations.get(KEY) == "true" and KEY not in meta.labels and facts.plane(w) == "none":
            yield Flaw(
                subject=w.ref,
                path=inside(w, "metadata", "annotations", KEY),
                message=f"{w.label} asks for a sidecar by annotation and gets none: namespace {w.namespace} does not inject, and only the label is looked at there.",
                because=("the webhook's objectSelector matches labels",),
                fix=f"metadata:\n  labels:\n    {KEY}: \"true\"",
            )


RULE = Rule(code="MT301", title="A sidecar is asked for by annotation only", severity=Severity.WARNING,
            catalogue=("IN-01",), about=WORKLOADS, needs=("Namespace",), find=find)

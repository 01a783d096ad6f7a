"""The label `security.istio.io/tlsMode` tells clients whether to use mTLS; set by hand it can lie either way."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

LABEL = "security.istio.io/tlsMode"


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        label = facts.face(w).metadata.labels.get(LABEL)
        if label is None:
            continue
        path = inside(w, "metadata", "labels", LABEL)
        if facts.plane(w) in ("sidecar", "native-sidecar") and label != "istio":
            yield Flaw(
                subject=w.ref, path=path,
                message=f"Clients send plaintext to {w.label}: its label says {label}. STRICT refuses them all, meshed or not.",
                because=("clients take the endpoint's label security.istio.io/tlsMode; the injector keeps a value that is there",),
                fix=f"Remove the label {LABEL}; the injector sets it.",
            )
        elif facts.plane(w) == "none" and label == "istio":
            yield Flaw(
                subject=w.ref, path=path,
                message=f"Meshed clients send mTLS to {w.label}, which has no proxy: those calls fail.",
                because=("clients take the endpoint's label security.istio.io/tlsMode",),
                fix=f"Remove the label {LABEL}.",
            )


RULE = Rule(code="MT212", title="The label that announces mTLS lies", severity=Severity.ERROR,
            catalogue=("CL-03",), about=WORKLOADS, needs=("Namespace",), find=find)

"""Network interfaces that are left out of interception, or added by Multus: traffic on them skips the mesh."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

KEYS = ("traffic.sidecar.istio.io/excludeInterfaces", "k8s.v1.cni.cncf.io/networks", "istio.io/reroute-virtual-interfaces")


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.in_mesh:
        notes = facts.face(w).metadata.annotations
        for key in KEYS:
            if notes.get(key):
                yield Flaw(
                    subject=w.ref,
                    path=inside(w, "metadata", "annotations", key),
                    message=f"Traffic of {w.label} on {notes[key][:60]} is not captured: STRICT does not hold there.",
                    because=(f"annotation {key}",),
                    fix="Restrict that network by other means; the mesh does not see it.",
                )


RULE = Rule(code="MT312", title="A network interface skips the sidecar", severity=Severity.WARNING,
            catalogue=("IN-14",), about=WORKLOADS, needs=("Namespace",), find=find)

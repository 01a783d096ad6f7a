"""gVisor and Kata: the interception rules do not work there, or not reliably."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

HANDLERS = ("runsc", "gvisor", "kata")


def find(facts: Facts) -> Iterator[Flaw]:
    handlers = {c.name: c.handler for c in facts.mesh.runtime_classes}
    for w in facts.workloads:
        name = facts.face(w).spec.runtime_class_name
        handler = handlers.get(name, name)
        if name and facts.meshed(w) and handler.startswith(HANDLERS):
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "runtimeClassName"),
                message=f"{w.label} runs in {handler}, where Istio's interception is unsupported or fragile: STRICT may enforce nothing there.",
                because=(f"RuntimeClass {name} has handler {handler}",),
                fix="Prove it on the wire: meshtls probe. Treat it as outside the mesh until then.",
            )


RULE = Rule(code="MT310", title="A sandboxed runtime may not intercept", severity=Severity.WARNING,
            catalogue=("IN-12", "PP-16"), about=WORKLOADS, needs=("RuntimeClass", "Namespace"), find=find)

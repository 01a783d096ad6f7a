"""Workloads outside the mesh: any of them may be a plaintext client of it. One finding a namespace."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Confidence, Severity


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.meshed_namespaces:
        return
    for namespace, workloads in facts.workloads_in.items():
        if namespace == facts.mesh.root:
            continue
        outside = [w.label for w in workloads if w.ref in facts.lone and w.kind not in ("Job", "CronJob")]
        if outside:
            yield Flaw(
                subject=f"Namespace/{namespace}",
                message=f"{say.some(outside)} {'has' if len(outside) == 1 else 'have'} no sidecar: what they call in the mesh, STRICT refuses. "
                        "Objects do not say what that is.",
                because=("a client without sidecar has no certificate of the mesh",),
                fix="See who still sends plaintext before the switch: meshtls observe -n NAMESPACE",
            )


RULE = Rule(code="MT242", title="Workloads outside the mesh may call into it", severity=Severity.WARNING, confidence=Confidence.INFERRED,
            catalogue=("NC-01", "NC-07", "RB-13"), about=WORKLOADS, needs=("Namespace",), find=find)

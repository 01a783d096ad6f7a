"""A workload without pods (no replicas, a job that waits) is judged by its template; probes and metrics miss it."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.meshed_namespaces:
        return
    for w in facts.workloads:
        spec = getattr(w.owner, "spec", None)
        idle = isinstance(spec, o.WorkloadSpec) and spec.replicas == 0 and w.kind != "ReplicaSet"
        if idle and not w.pods:
            yield Flaw(
                subject=w.ref,
                path=("spec", "replicas"),
                message=f"{w.label} has no replicas: no probe and no metric shows how it behaves when it comes back.",
                fix="Judge it by its template (this audit does), or start it once before the switch.",
            )


RULE = Rule(code="MT305", title="A workload does not run at the moment", severity=Severity.INFO,
            catalogue=("IN-05", "RB-12", "RB-17"), about=("Deployment", "StatefulSet", "ReplicaSet"), reads=("Namespace",), find=find)

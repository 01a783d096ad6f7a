"""Interception mode NONE: nothing is captured, and clients still send mTLS, since the pod says that it has a sidecar."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.select import subset as matches

KEY = "sidecar.istio.io/interceptionMode"


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        meta = facts.face(w).metadata
        said = meta.annotations.get(KEY, facts.mesh.config.default_config.interception_mode)
        if said != "NONE":
            continue
        served = any(s.spec.ingress and s.spec.workload_selector and matches(s.spec.workload_selector.labels, meta.labels)
                     for s in facts.mesh.sidecars if s.namespace == w.namespace)
        if not served:
            yield Flaw(
                subject=w.ref,
                path=inside(w, "metadata", "annotations", KEY),
                message=f"Nothing that {w.label} receives is captured (interception mode NONE): STRICT enforces nothing there, and meshed clients send it mTLS it does not expect.",
                because=("without interception only the listeners of a Sidecar's ingress receive traffic, and none selects this workload",),
                fix=f"Remove the annotation {KEY}, or write a Sidecar with ingress for each port.",
            )


RULE = Rule(code="MT307", title="Inbound traffic is not intercepted", severity=Severity.WARNING,
            catalogue=("IN-09",), about=WORKLOADS, needs=("Sidecar", "Namespace"), reads=("ConfigMap",), find=find)

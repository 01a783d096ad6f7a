"""A pod that started before istio-cni was ready has no interception rules."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

LABEL = "cni.istio.io/uninitialized"


def find(facts: Facts) -> Iterator[Flaw]:
    for pod in facts.mesh.pods:
        if LABEL in pod.metadata.labels:
            yield Flaw(
                subject=pod.ref,
                path=("metadata", "labels", LABEL),
                message=f"{pod.name} started before istio-cni was ready on its node: its traffic may pass its sidecar.",
                because=(f"label {LABEL}",),
                fix=f"  kubectl -n {pod.namespace} delete pod {pod.name}",
            )


RULE = Rule(code="MT309", title="A pod started before istio-cni was ready", severity=Severity.WARNING,
            catalogue=("IN-11",), about=("Pod",), find=find)

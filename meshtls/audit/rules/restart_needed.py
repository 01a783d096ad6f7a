"""Pods that were made before their namespace injected: they have no proxy until they are restarted."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if not w.pods or w.template is None or w.namespace == facts.mesh.root or facts.face(w).spec.host_network:
            continue
        would = facts.would_be(w)
        bare = [pod.name for pod in w.pods if pod.status.phase not in ("Succeeded", "Failed")
                and facts.plane_of(pod) == "none"]
        if bare and would in ("sidecar", "native-sidecar"):
            yield Flaw(
                subject=w.ref,
                message=f"{len(bare)} of {len(w.pods)} pods of {w.label} have no sidecar although namespace {w.namespace} injects: they were made before it did. "
                        "STRICT enforces nothing there, and what they call refuses them.",
                because=(f"pod {bare[0]} has no istio-proxy",),
                fix=f"  kubectl -n {w.namespace} rollout restart {w.kind.lower()}/{w.name}",
            )


RULE = Rule(code="MT304", title="Pods without sidecar need a restart", severity=Severity.WARNING,
            catalogue=("IN-04", "PA-18"), about=("Pod",), needs=("Namespace",), find=find)

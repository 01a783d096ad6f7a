"""A proxy of a revision whose istiod is gone keeps the policy it has, PERMISSIVE, for ever."""

import json
from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Confidence, Severity
from meshtls.model.objects import Pod


def find(facts: Facts) -> Iterator[Flaw]:
    known = set(facts.mesh.configs)
    if not known or not facts.mesh.live:
        return
    for w in facts.workloads:
        if not w.pods or not facts.sidecar(w):
            continue
        revision = revision_of(facts.face(w))
        if revision and revision not in known:
            yield Flaw(
                subject=w.ref,
                message=f"The proxies of {w.label} belong to revision {revision}, which has no istiod here: they keep the policy they have and never hear of STRICT.",
                because=(f"revisions with a mesh configuration: {', '.join(sorted(known))}",),
                fix=f"  kubectl -n {w.namespace} rollout restart {w.kind.lower()}/{w.name}\nafter the namespace names a revision that exists.",
            )


def revision_of(pod: Pod) -> str:
    """The revision that injected a pod; "" where it is not said."""
    if said := pod.metadata.annotations.get("istio.io/rev"):
        return said
    try:
        status = json.loads(pod.metadata.annotations.get("sidecar.istio.io/status", "{}"))
    except ValueError:
        return ""
    said = status.get("revision") if isinstance(status, dict) else ""
    return said if isinstance(said, str) else ""


RULE = Rule(code="MT306", title="A proxy belongs to a revision without istiod", severity=Severity.WARNING, confidence=Confidence.BELIEVED,
            catalogue=("IN-08",), about=("Pod",), needs=("ConfigMap",), find=find)

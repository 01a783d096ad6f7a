"""A proxy of a revision whose istiod is gone keeps the policy it has, PERMISSIVE, for ever."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.dataplane import revision_of


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    if not facts.mesh.configs or not facts.mesh.live:
        yield Unsure("which istiods run is not in the input: it holds no mesh configuration of a cluster")
        return
    running = {revision(d) for d in facts.mesh.deployments if d.template.metadata.labels.get("app") == "istiod" and d.spec.replicas != 0}
    known = running or set(facts.mesh.configs)
    for w in facts.workloads:
        if not w.pods or not facts.sidecar(w):
            continue
        served = revision_of(facts.face(w))
        if served and served not in known:
            yield Flaw(
                subject=w.ref,
                message=f"The proxies of {w.label} belong to revision {served}, which has no istiod here: they keep the policy they have and never hear of STRICT.",
                because=(f"revisions whose istiod runs: {', '.join(sorted(known))}",),
                fix=f"  kubectl -n {w.namespace} rollout restart {w.kind.lower()}/{w.name}\nafter the namespace names a revision that exists.",
            )


def revision(istiod: o.Deployment) -> str:
    """The revision that an istiod serves."""
    return istiod.template.metadata.labels.get("istio.io/rev", istiod.labels.get("istio.io/rev", "default"))


RULE = Rule(code="MT306", title="A proxy belongs to a revision without istiod", severity=Severity.WARNING,
            catalogue=("IN-08",), about=("Pod",), needs=("ConfigMap",), find=find)

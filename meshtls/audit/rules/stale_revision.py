"""A proxy of a revision whose istiod is gone keeps the policy it has, PERMISSIVE, for ever."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.model.check import Severity
from meshtls.policy.dataplane import revision_of


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    known = set(facts.mesh.configs)
    if not known or not facts.mesh.live:
        yield Unsure("which istiods run is not in the input: it holds no mesh configuration of a cluster")
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


RULE = Rule(code="MT306", title="A proxy belongs to a revision without istiod", severity=Severity.WARNING,
            catalogue=("IN-08",), about=("Pod",), needs=("ConfigMap",), find=find)

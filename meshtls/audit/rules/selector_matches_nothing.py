"""A policy whose selector matches no workload has no effect, and nothing says so."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode
from meshtls.policy.select import subset as matches


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        if not selective(policy) or policy.namespace == facts.mesh.root:
            continue
        wanted = policy.spec.selector.match_labels  # type: ignore[union-attr]
        workloads = facts.workloads_in.get(policy.namespace, ())
        if not facts.mesh.live and not workloads:
            continue
        if next(facts.selected(policy.namespace, wanted), None):
            continue
        if any(matches(wanted, w.template.metadata.labels) for w in workloads if w.template):
            continue
        if any(matches(wanted, e.spec.labels) for e in facts.mesh.workload_entries if e.namespace == policy.namespace):
            continue
        chosen = ", ".join(f"{k}={v}" for k, v in wanted.items())
        yield Flaw(
            subject=policy.ref,
            path=("spec", "selector", "matchLabels"),
            message=f"Its selector {chosen} matches no workload in {policy.namespace}: its mode {mode(policy)} has no effect.",
            because=(f"{len(workloads)} workloads of the namespace were compared",),
            fix=f"See the labels there, then correct the selector or delete the policy:\n  kubectl -n {policy.namespace} get pods --show-labels",
        )


RULE = Rule(code="MT108", title="A policy's selector matches nothing", severity=Severity.WARNING,
            catalogue=("PA-12",), about=("PeerAuthentication",), needs=("Pod", "Deployment", "StatefulSet", "DaemonSet", "WorkloadEntry"), find=find)

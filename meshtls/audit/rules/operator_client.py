"""Pods that an operator made, in the mesh, while the operator is not: it calls them by address, in plaintext."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Confidence, Severity

KUBERNETES = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod", "Node"})

# kinds that only replace a Deployment or a StatefulSet: nobody calls their pods by address
ORDINARY = frozenset({"Rollout", "DeploymentConfig", "CloneSet", "AdvancedCronJob", "BroadcastJob", "Application", "HelmRelease", "HelmChart"})


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        owner = w.kind if w.kind not in KUBERNETES else next(
            (r.kind for r in (w.owner.metadata.owner_references if w.owner else ()) if r.controller and r.kind not in KUBERNETES), "")
        if not owner or owner in ORDINARY or not facts.refuses(w) or not facts.ports(w):
            continue
        yield Flaw(
            subject=w.ref,
            message=f"An operator made {w.label} (owner {owner}) and usually calls its pods by address: plaintext, refused under STRICT.",
            because=("operators check and configure the pods they make without going through a Service",),
            fix="See what it calls (meshtls observe), put the operator into the mesh, and keep the ports it calls by address open.",
        )


RULE = Rule(code="MT246", title="An operator calls the pods it made", severity=Severity.WARNING, confidence=Confidence.BELIEVED,
            catalogue=("NC-06", "CL-07"), about=("Pod", "StatefulSet", "Deployment"), needs=("Namespace", "PeerAuthentication"), reads=("Service",), find=find)

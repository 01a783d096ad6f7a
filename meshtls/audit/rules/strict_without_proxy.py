"""STRICT is declared, and the workload has no proxy that could enforce it."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if w.kind in ("Job", "CronJob") or w.namespace == facts.mesh.root or facts.plane(w) != "none":
            continue
        if w.ref not in facts.services_of or facts.mode(w) != "STRICT":
            continue
        face = facts.face(w)
        if face.spec.host_network:
            why, fix = "it runs in the host's network", "A NetworkPolicy does not reach it either; bind it to an address that others cannot reach."
        elif w.pods:
            why = "its pods were made without one"
            fix = f"  kubectl -n {w.namespace} rollout restart {w.kind.lower()}/{w.name}\nand make sure that the namespace injects, or restrict it with a NetworkPolicy."
        else:
            why, fix = "it would be made without one", "Let the namespace inject it, or restrict who reaches it with a NetworkPolicy."
        yield Flaw(
            subject=w.ref,
            message=f"Namespace {w.namespace} is STRICT, {w.label} is not: {why}. It answers plaintext from anywhere.",
            because=("only a sidecar or ztunnel enforces PeerAuthentication",),
            fix=fix,
        )


RULE = Rule(code="MT115", title="STRICT without a proxy to enforce it", severity=Severity.WARNING,
            catalogue=("PA-18", "SE-09"), about=WORKLOADS, needs=("PeerAuthentication", "Service", "Namespace"), find=find)

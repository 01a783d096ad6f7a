"""Plaintext from outside the mesh goes past the waypoint: its L7 policies hold only where the workload is STRICT."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

LABEL = "istio.io/use-waypoint"


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        waypoint = service.labels.get(LABEL, facts.mesh.namespace_labels.get(service.namespace, {}).get(LABEL, ""))
        if waypoint in ("", "none"):
            continue
        open_ = [w for w in facts.behind(service) if facts.plane(w) == "ambient" and facts.mode(w) != "STRICT"]
        if open_:
            yield Flaw(
                subject=service.ref,
                message=f"Plaintext clients reach {open_[0].label} past the waypoint {waypoint}: its policies do not see them.",
                because=(f"{open_[0].ref} is {facts.mode(open_[0])}", "ztunnel sends to the waypoint only what comes over mTLS"),
                fix=f"Make the namespace STRICT: meshtls migrate plan -n {service.namespace}",
            )


RULE = Rule(code="MT123", title="A waypoint is bypassed by plaintext", severity=Severity.WARNING,
            catalogue=("AM-06",), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"), find=find)

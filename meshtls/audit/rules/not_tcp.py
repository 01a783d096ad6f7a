"""UDP and SCTP are not captured: STRICT neither protects nor breaks them."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        ports = [p for p in service.spec.ports if p.protocol in ("UDP", "SCTP")]
        meshed = [w for w in facts.behind(service) if facts.meshed(w)]
        if not ports or not meshed:
            continue
        strict = any(facts.mode(w) == "STRICT" for w in meshed)
        yield Flaw(
            subject=service.ref,
            path=("spec", "ports"),
            severity=Severity.WARNING if strict else Severity.INFO,
            message=f"{ports[0].protocol} port {ports[0].port} of {meshed[0].label} is outside the mesh: mTLS covers TCP only.",
            because=("neither sidecar nor ztunnel captures anything but TCP",),
            fix="Restrict it with a NetworkPolicy, or encrypt it on the node level.",
        )


RULE = Rule(code="MT131", title="A port that is not TCP stays unprotected", severity=Severity.WARNING,
            catalogue=("UD-01",), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"), find=find)

"""PeerAuthentication does not apply to a gateway's listeners: its servers' own TLS settings decide."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if facts.plane(w) != "gateway":
            continue
        for policy in facts.own(w):
            yield Flaw(
                subject=policy.ref,
                path=("spec", "selector"),
                message=f"Selects the gateway {w.label}, and does nothing there: a gateway's listeners know no PeerAuthentication.",
                because=("istiod asks for PeerAuthentication only when it builds the inbound listener of a sidecar",),
                fix="Decide at the gateway: spec.servers[].tls.mode of its Gateway, and an AuthorizationPolicy.",
            )


RULE = Rule(code="MT114", title="A policy selects a gateway", severity=Severity.WARNING,
            catalogue=("PA-17", "SE-11"), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)

"""Clusters on several networks: an endpoint of another network that clients do not reach by mTLS is dropped."""

from collections.abc import Iterator

from meshtls.audit.destinations import servers, settings
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

LABEL = "topology.istio.io/network"


def find(facts: Facts) -> Iterator[Flaw]:
    networks = {labels[LABEL] for labels in facts.mesh.namespace_labels.values() if LABEL in labels}
    networks |= {e.spec.network for e in facts.mesh.workload_entries if e.spec.network}
    if len(networks) < 2:
        return
    for rule in facts.mesh.destination_rules:
        for setting in settings(rule):
            if setting.mode != "ISTIO_MUTUAL" and servers(facts, rule):
                yield Flaw(
                    subject=rule.ref,
                    path=setting.path,
                    message=f"tls {setting.mode}: endpoints of {rule.spec.host} on another network are left out, since only mTLS crosses an east-west gateway.",
                    because=(f"the input names networks {', '.join(sorted(networks))}",),
                    fix="Take the tls block out, or make it ISTIO_MUTUAL.",
                )


RULE = Rule(code="MT224", title="Calls to another network need mTLS", severity=Severity.WARNING,
            catalogue=("CL-19",), about=("DestinationRule",), needs=("Service",), reads=("Namespace", "WorkloadEntry"), find=find)

"""Two DestinationRules for one host in one namespace: subsets are joined, the oldest trafficPolicy wins."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.select import age


def find(facts: Facts) -> Iterator[Flaw]:
    seen: dict[tuple[str, str], o.DestinationRule] = {}
    for rule in sorted(facts.mesh.destination_rules, key=age):
        if rule.spec.workload_selector or rule.spec.traffic_policy is None:
            continue
        service = facts.service(rule.spec.host, rule.namespace)
        first = seen.setdefault((rule.namespace, service.ref if service else rule.spec.host), rule)
        if first is not rule and set(first.spec.export_to) == set(rule.spec.export_to):
            yield Flaw(
                subject=rule.ref,
                path=("spec", "trafficPolicy"),
                message=f"Its trafficPolicy has no effect: {first.ref} is for the same host {rule.spec.host} and older.",
                because=("rules for one host in one namespace are merged: subsets are joined, of the trafficPolicies the oldest counts",),
                fix=f"Join the two into {first.ref}.",
                affects=(service.namespace,) if service else (),
            )


RULE = Rule(code="MT205", title="Several DestinationRules for one host", severity=Severity.WARNING,
            catalogue=("DR-07",), about=("DestinationRule",), reads=("Service",), find=find)

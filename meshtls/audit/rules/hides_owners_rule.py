"""A client namespace's DestinationRule hides the service owner's whole rule, its TLS settings included.

istiod looks in the client's namespace, then the service's, then the root; the first that has a rule for the host wins whole.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import settings
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    owners: dict[str, o.DestinationRule] = {}
    for rule in facts.mesh.destination_rules:
        service = facts.service(rule.spec.host, rule.namespace)
        if service and service.namespace == rule.namespace and any(settings(rule)):
            owners[service.ref] = rule
    for rule in facts.mesh.destination_rules:
        service = facts.service(rule.spec.host, rule.namespace)
        if service is None or service.namespace == rule.namespace or service.ref not in owners or any(settings(rule)):
            continue
        hidden = owners[service.ref]
        modes = sorted({s.mode for s in settings(hidden)})
        yield Flaw(
            subject=rule.ref,
            path=("spec", "host"),
            message=f"Clients in {rule.namespace} do not see the tls ({', '.join(modes)}) of {hidden.ref}: this rule for the same host hides it.",
            because=("rules of different namespaces are never merged: the client's namespace comes first, then the service's, then the root",),
            fix=f"Repeat the tls of {hidden.ref} here, or move these settings there.",
            affects=(service.namespace,),
        )


RULE = Rule(code="MT204", title="A DestinationRule hides the service owner's", severity=Severity.WARNING,
            catalogue=("DR-06",), about=("DestinationRule",), needs=("Service",), find=find)

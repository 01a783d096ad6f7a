"""ISTIO_MUTUAL towards a workload without a proxy fails in every mode, and is mistaken for breakage by STRICT."""

from collections.abc import Iterator

from meshtls.audit.destinations import servers, settings, without
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for rule in facts.mesh.destination_rules:
        if rule.spec.host.startswith("*"):
            continue
        for setting in settings(rule):
            if setting.mode != "ISTIO_MUTUAL":
                continue
            for service in servers(facts, rule):
                bare = [w for w in facts.behind(service) if facts.plane(w) == "none" and w.kind != "Pod" or (facts.plane(w) == "none" and w.pods)]
                if bare:
                    yield Flaw(
                        subject=rule.ref,
                        path=setting.path,
                        message=f"Meshed clients insist on mTLS with {service.ref}, and {bare[0].label} has no proxy to answer it: those calls fail now.",
                        because=(f"{bare[0].ref} has no sidecar and is not in ambient", "it fails under PERMISSIVE and STRICT alike"),
                        fix=f"Take the tls block out:\n{without(rule, setting.path)}",
                        affects=(service.namespace,),
                    )


RULE = Rule(code="MT207", title="A DestinationRule insists on mTLS with a server that has no proxy", severity=Severity.WARNING,
            catalogue=("DR-10",), about=("DestinationRule",), needs=("Service", "Pod", "Namespace"), find=find)

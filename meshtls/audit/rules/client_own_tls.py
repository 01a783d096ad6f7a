"""A DestinationRule makes meshed clients speak TLS of their own (SIMPLE, MUTUAL) to a workload in the mesh.

Such TLS carries no certificate of the mesh: STRICT refuses it. Under PERMISSIVE it reaches the application on ports that are
not named http, so that it works until the switch.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import counts, refusing, routed, servers, settings, without
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for rule in facts.mesh.destination_rules:
        for setting in settings(rule):
            if setting.mode not in ("SIMPLE", "MUTUAL"):
                continue
            for service in servers(facts, rule):
                hits = refusing(facts, service, setting.port)
                if not hits or not counts(facts, rule, setting, service):
                    continue
                idle = bool(setting.subset) and not routed(facts, service, setting.subset)
                w, port = hits[0]
                reason = "without a client certificate" if setting.mode == "SIMPLE" else "with a certificate that is not the mesh's"
                yield Flaw(
                    subject=rule.ref,
                    path=setting.path,
                    severity=Severity.INFO if idle else None,
                    message=f"Meshed clients bring TLS {reason} ({setting.mode}) to {service.ref}: STRICT on {w.label} port {port} refuses it."
                            + (f" No VirtualService leads to subset {setting.subset} now." if idle else ""),
                    catalogue=("DR-02", *(("DR-05",) if setting.subset else ())),
                    because=("STRICT accepts only certificates that the mesh's CA signed",
                             f"{w.ref} is in the mesh; clients would use mTLS by themselves, also around TLS of the application"),
                    fix=f"Take the tls block out:\n{without(rule, setting.path)}",
                    affects=(service.namespace,),
                )
                break


RULE = Rule(code="MT202", title="A DestinationRule brings foreign TLS to a workload in the mesh", severity=Severity.ERROR,
            catalogue=("DR-02", "DR-05"), about=("DestinationRule",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"),
            reads=("VirtualService",), find=find)

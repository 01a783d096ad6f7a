"""A DestinationRule makes meshed clients send plaintext to workloads that STRICT would make refuse it.

`tls` without a mode means DISABLE: the enumeration's zero value. DestinationRule counts more than PeerAuthentication.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import counts, refusing, routed, servers, settings, without
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for rule in facts.mesh.destination_rules:
        for setting in settings(rule):
            if setting.mode != "DISABLE":
                continue
            targets = [(s, hit) for s in servers(facts, rule)
                       if (hit := refusing(facts, s, setting.port)) and counts(facts, rule, setting, s)]
            if not targets:
                continue
            service, hits = targets[0]
            w, port = hits[0]
            now = facts.mode(w, port) == "STRICT"
            idle = bool(setting.subset) and not any(routed(facts, s, setting.subset) for s, _ in targets)
            more = f" and {len(targets) - 1} more Services" if len(targets) > 1 else ""
            what = f"subset {setting.subset} of " if setting.subset else ""
            said = "DISABLE" if setting.written else "without a mode, which means DISABLE"
            effect = ("No VirtualService leads there now." if idle else "Every call fails: the server is STRICT." if now
                      else f"Every call fails with 503 once {service.namespace} is STRICT.")
            yield Flaw(
                subject=rule.ref,
                path=setting.path,
                severity=Severity.INFO if idle else None,
                message=f"Meshed clients send plaintext to {what}{service.ref}{more}: tls is {said}. {effect}",
                because=(f"{rule.ref} {'.'.join(setting.path)} is {said}",
                         f"{w.ref} port {port} {'is STRICT' if now else f'is {facts.mode(w, port)} now and would become STRICT'}",
                         "a DestinationRule counts more than what the server's PeerAuthentication would make clients do"),
                catalogue=("DR-01" if setting.written else "DR-03", *(("DR-05",) if setting.subset else ())),
                fix=f"Take the tls block out; clients then use mTLS by themselves:\n{without(rule, setting.path)}",
                affects=tuple({s.namespace for s, _ in targets}),
            )


RULE = Rule(code="MT201", title="A DestinationRule makes meshed clients send plaintext", severity=Severity.ERROR,
            catalogue=("DR-01", "DR-03", "DR-05"), about=("DestinationRule",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"),
            reads=("VirtualService",), find=find)

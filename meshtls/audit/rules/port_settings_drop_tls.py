"""A `portLevelSettings` entry replaces all settings of the host for its port, `tls` among them, in one half of istiod only.

The cluster takes the port's entry alone (no tls: the client decides by itself), the endpoints inherit the host's tls. The two
together: a host-wide DISABLE still gives plaintext, a host-wide ISTIO_MUTUAL still gives mTLS, to endpoints without sidecar too.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import refusing, servers
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for rule in facts.mesh.destination_rules:
        policy = rule.spec.traffic_policy
        if policy is None or policy.tls is None or not servers(facts, rule):
            continue
        for index, entry in enumerate(policy.port_level_settings):
            if entry.tls is None and entry.port:
                refused = policy.tls.mode != "ISTIO_MUTUAL" and any(refusing(facts, s, entry.port.number) for s in servers(facts, rule))
                yield Flaw(
                    subject=rule.ref,
                    path=("spec", "trafficPolicy", "portLevelSettings", str(index)),
                    severity=None if refused else Severity.WARNING,
                    message=f"The settings of port {entry.port.number} do not repeat tls ({policy.tls.mode} for the host): half of istiod inherits it "
                            + ("and half does not. Clients send plaintext there, which STRICT refuses." if refused else "and half does not."),
                    because=("the client's cluster takes the port's entry alone; whether an endpoint gets mTLS is still decided by the host's tls",),
                    fix=f"Repeat it:\n  portLevelSettings:\n  - port:\n      number: {entry.port.number}\n    tls:\n      mode: {policy.tls.mode}",
                    affects=tuple(s.namespace for s in servers(facts, rule)),
                )


RULE = Rule(code="MT203", title="A port's settings lose the host's TLS", severity=Severity.ERROR,
            catalogue=("DR-04",), about=("DestinationRule",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

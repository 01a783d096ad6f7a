"""A port left out of interception, and a Service's: meshed clients send mTLS to the application itself."""

from collections.abc import Iterator

from meshtls.audit.destinations import told
from meshtls.audit.facts import Facts
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        for service in facts.services_of.get(w.ref, ()):
            for port in service.spec.ports:
                target = facts.target(port, w)
                if port.protocol in ("TCP", "") and target not in (0, 15020, 15021, 15090) and facts.skipped(w, target) and facts.mode(w, target) != "DISABLE":
                    if told(facts, service, port.port, "DISABLE"):
                        continue
                    yield Flaw(
                        subject=service.ref,
                        path=("spec", "ports", port.name or str(port.port)),
                        catalogue=("WH-07", "SE-06"),
                        message=f"Meshed clients send mTLS to port {port.port}, and {w.label} does not intercept {target}: the application gets TLS it does not expect.",
                        because=("clients know nothing of excluded ports; they see a pod with a sidecar",),
                        fix="Open the port by policy instead of excluding it, or tell clients:\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
                            f"metadata:\n  name: {service.name}-plaintext\n  namespace: {service.namespace}\nspec:\n  host: {service.name}.{service.namespace}.svc.cluster.local\n"
                            f"  trafficPolicy:\n    portLevelSettings:\n    - port:\n        number: {port.port}\n      tls:\n        mode: DISABLE\n",
                    )


RULE = Rule(code="MT234", title="A port past the proxy is offered to meshed clients", severity=Severity.WARNING,
            catalogue=("WH-07", "SE-06"), about=WORKLOADS, needs=("Service", "Namespace", "PeerAuthentication"), reads=("DestinationRule",), find=find)

"""Clients of a headless Service do not see a workload's DISABLE: they send mTLS to a plaintext port."""

from collections.abc import Iterator

from meshtls.audit.destinations import told
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        if service.spec.cluster_ip != "None":
            continue
        for w in facts.behind(service):
            if not facts.sidecar(w) or facts.namespace_mode(w.namespace) == "DISABLE":
                continue
            for port in service.spec.ports:
                target = facts.target(port, w)
                if target and facts.mode(w, target) == "DISABLE" and not told(facts, service, port.port, "DISABLE"):
                    own = facts.own(w)[0]
                    yield Flaw(
                        subject=own.ref,
                        path=("spec", "portLevelMtls", str(target)) if str(target) in own.spec.port_level_mtls else ("spec", "mtls"),
                        message=f"Meshed clients go on sending mTLS to port {port.port} of the headless {service.ref}, which is DISABLE here: those calls fail.",
                        because=("for a headless Service clients do not ask the policy of the workload",),
                        fix=f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {service.name}-plaintext\n  namespace: {service.namespace}\n"
                            f"spec:\n  host: {service.name}.{service.namespace}.svc.cluster.local\n  trafficPolicy:\n    portLevelSettings:\n"
                            f"    - port:\n        number: {port.port}\n      tls:\n        mode: DISABLE\n",
                    )


RULE = Rule(code="MT215", title="A headless Service's clients do not see an exception", severity=Severity.WARNING,
            catalogue=("CL-06",), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"), reads=("DestinationRule",), find=find)

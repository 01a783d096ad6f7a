"""Endpoints without `targetRef` are not recognised as meshed pods of another namespace: clients send plaintext."""

from collections.abc import Iterator

from meshtls.audit.destinations import told
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for piece in facts.mesh.endpoint_slices:
        for endpoint in piece.endpoints:
            if endpoint.target_ref is not None:
                continue
            for address in endpoint.addresses:
                pod = facts.mesh.pod_by_ip.get(address)
                if pod is None or pod.namespace == piece.namespace:
                    continue
                w = facts.mesh.workload_of_pod.get((pod.namespace, pod.name))
                ports = [p.port for p in piece.ports] or [0]
                if w is None or not any(facts.refuses(w, port) for port in ports):
                    continue
                service = piece.labels.get("kubernetes.io/service-name", piece.name)
                known = facts.mesh.services_by_name.get((piece.namespace, service))
                if known and known.spec.ports and all(told(facts, known, p.port, "ISTIO_MUTUAL") for p in known.spec.ports):
                    break
                yield Flaw(
                    subject=piece.ref,
                    path=("endpoints",),
                    message=f"Meshed clients of Service {service} send plaintext to {w.ref} ({address}): STRICT refuses it.",
                    because=("an endpoint without targetRef is looked up by address in its own namespace only; not found, it counts as without sidecar",),
                    fix=f"Use a Service with a selector in {pod.namespace}, or say mTLS for this one:\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
                        f"metadata:\n  name: {service}\n  namespace: {piece.namespace}\nspec:\n  host: {service}.{piece.namespace}.svc.cluster.local\n"
                        "  trafficPolicy:\n    tls:\n      mode: ISTIO_MUTUAL\n",
                    affects=(pod.namespace,),
                )
                break


RULE = Rule(code="MT213", title="Hand-made endpoints point to meshed pods", severity=Severity.ERROR,
            catalogue=("CL-04",), about=("EndpointSlice",), needs=("Pod", "PeerAuthentication", "Namespace"), reads=("Service", "DestinationRule"),
            find=find)

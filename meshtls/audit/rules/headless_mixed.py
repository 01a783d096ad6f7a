"""A headless Service with one endpoint without proxy: clients send plaintext to all its endpoints.

Source: BestEffortInferServiceMTLSMode for services without cluster IP. With no endpoint at all it is the same.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import refusing, told
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.select import subset as matches


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        if service.spec.cluster_ip != "None" or not service.spec.selector:
            continue
        hits = [(w, port) for w, port in refusing(facts, service) if facts.sidecar(w)]
        if not hits or all(told(facts, service, p.port, "ISTIO_MUTUAL") for p in service.spec.ports if p.protocol in ("TCP", "")):
            continue
        bare = next((pod.ref for w in facts.behind(service) for pod in (w.pods or facts.faces(w))
                     if matches(service.spec.selector, pod.metadata.labels) and facts.plane_of(pod, w.ref) == "none"), None)
        if bare:
            yield Flaw(
                subject=service.ref,
                path=("spec", "clusterIP"),
                message=f"Meshed clients send plaintext to every endpoint of this headless Service, because {bare} has no sidecar: STRICT refuses them.",
                because=("for a headless Service one endpoint without sidecar turns mTLS off for all",
                         f"{hits[0][0].ref} port {hits[0][1]} has a sidecar and would be STRICT"),
                fix=f"Finish the rollout, so that all pods have a sidecar:\n  kubectl -n {service.namespace} rollout restart {hits[0][0].kind.lower()}/{hits[0][0].name}",
            )


RULE = Rule(code="MT214", title="A headless Service has endpoints with and without sidecar", severity=Severity.ERROR,
            catalogue=("CL-05",), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"), reads=("DestinationRule",), find=find)

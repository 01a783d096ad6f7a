"""An aggregated API inside the mesh (metrics adapter, KEDA): it becomes unavailable, autoscaling freezes."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.audit.rules.admission_webhook import backend, remedy
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    for api in facts.mesh.api_services:
        hit = backend(facts, api.spec.service)
        if isinstance(hit, Unsure):
            yield hit
        elif hit:
            service, w, port = hit
            yield Flaw(
                subject=api.ref,
                path=("spec", "service"),
                message=f"STRICT in {w.namespace} makes the API {api.name} unavailable: what depends on it (autoscaling, kubectl discovery) stops.",
                because=(f"{service.ref} leads to {w.ref} port {port}, which is in the mesh", "the API server has no certificate of the mesh"),
                fix=remedy(facts, w, port),
                affects=(w.namespace,),
            )


RULE = Rule(code="MT232", title="An aggregated API is served from inside the mesh", severity=Severity.ERROR,
            catalogue=("WH-03", "RB-18"), about=("APIService",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

"""The API server calls a webhook, an aggregated API or a conversion inside the mesh: it has no identity there.

Under PERMISSIVE its TLS passes through to the application; under STRICT the proxy answers with the mesh's certificate.
Shared by the rules for the four kinds of backends.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity
from meshtls.model.workload import Workload


def backend(facts: Facts, reference: o.ServiceReference | None) -> tuple[o.Service, Workload, int] | None:
    """(Service, workload, target port) that the API server would no longer reach under STRICT."""
    if reference is None:
        return None
    service = facts.mesh.services_by_name.get((reference.namespace, reference.name))
    if service is None:
        return None
    for w in facts.behind(service):
        for port in service.spec.ports:
            if port.port == (reference.port or 443):
                target = facts.target(port, w)
                if target and facts.refuses(w, target):
                    return service, w, target
    return None


def remedy(facts: Facts, w: Workload, port: int) -> str:
    """Keep the one port open to the API server."""
    return "Before STRICT, keep this port open to the API server:\n" + say.exception(w, facts.face(w).metadata.labels, [port])


def find(facts: Facts) -> Iterator[Flaw]:
    for configuration in facts.webhooks:
        for index, webhook in enumerate(configuration.webhooks):
            hit = backend(facts, webhook.client_config.service)
            if hit is None:
                continue
            service, w, port = hit
            ignored = webhook.failure_policy == "Ignore"
            yield Flaw(
                subject=configuration.ref,
                path=("webhooks", str(index), "clientConfig", "service"),
                message=f"STRICT in {w.namespace} cuts the API server off from {webhook.name}, served by {w.label} port {port}: "
                        + ("its checks are skipped silently (failurePolicy Ignore)." if ignored else "what it guards can no longer be written (failurePolicy Fail)."),
                because=("the API server has no certificate of the mesh", f"{service.ref} leads to {w.ref}, which is in the mesh"),
                fix=remedy(facts, w, port),
                affects=(w.namespace,),
            )


RULE = Rule(code="MT230", title="An admission webhook is served from inside the mesh", severity=Severity.ERROR, confidence=Confidence.MEASURED,
            catalogue=("WH-01", "AM-13"), about=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
            needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

"""The API server calls a webhook, an aggregated API or a conversion inside the mesh: it has no identity there.

Under PERMISSIVE its TLS passes through to the application; under STRICT the proxy answers with the mesh's certificate.
Shared by the rules for the four kinds of backends.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload


def backend(facts: Facts, reference: o.ServiceReference | None) -> tuple[o.Service, Workload, int] | Unsure | None:
    """(Service, workload, target port) that the API server would no longer reach under STRICT; why that cannot be told; or None."""
    if reference is None:
        return None
    name = f"{reference.namespace}/{reference.name}"
    service = facts.mesh.services_by_name.get((reference.namespace, reference.name))
    if service is None:
        return None if facts.mesh.live else Unsure(f"Service {name}, which the API server calls, is not in the input")
    behind = facts.behind(service)
    if not behind and service.spec.selector and not facts.mesh.live:
        return Unsure(f"no workload behind Service {name}, which the API server calls, is in the input")
    for w in behind:
        for port in service.spec.ports:
            if port.port == (reference.port or 443):
                target = facts.target(port, w)
                if target and facts.refuses(w, target):
                    return service, w, target
    return None


def remedy(facts: Facts, w: Workload, port: int) -> str:
    """Keep the one port open to the API server."""
    return "Before STRICT, keep this port open to the API server:\n" + say.exception(facts, w, [port])


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    for configuration in facts.webhooks:
        for index, webhook in enumerate(configuration.webhooks):
            hit = backend(facts, webhook.client_config.service)
            if hit is None:
                continue
            if isinstance(hit, Unsure):
                yield hit
                continue
            service, w, port = hit
            ignored = webhook.failure_policy == "Ignore"
            yield Flaw(
                subject=configuration.ref,
                path=("webhooks", str(index), "clientConfig", "service"),
                message=f"STRICT in {w.namespace} cuts the API server off from {webhook.name}, served by {w.label} port {port}: "
                        + ("its checks are skipped silently (failurePolicy Ignore)." if ignored else "what it guards can no longer be written (failurePolicy Fail)."),
                because=("the API server has no certificate of the mesh", f"{service.ref} leads to {w.ref}, which is in the mesh"),
                catalogue=("WH-01", *(("AM-13",) if facts.plane(w) == "ambient" else ())),
                fix=remedy(facts, w, port),
                affects=(w.namespace,),
            )


RULE = Rule(code="MT230", title="An admission webhook is served from inside the mesh", severity=Severity.ERROR,
            catalogue=("WH-01", "AM-13"), about=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
            needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

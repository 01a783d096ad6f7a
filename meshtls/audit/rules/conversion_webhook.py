"""A conversion webhook inside the mesh: without it every read of its resources fails, and namespaces cannot be deleted."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.audit.rules.admission_webhook import backend, remedy
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    for crd in facts.mesh.crds:
        conversion = crd.spec.conversion
        if conversion is None or conversion.webhook is None:
            continue
        hit = backend(facts, conversion.webhook.client_config.service)
        if isinstance(hit, Unsure):
            yield hit
        elif hit:
            service, w, port = hit
            yield Flaw(
                subject=crd.ref,
                path=("spec", "conversion", "webhook", "clientConfig", "service"),
                message=f"STRICT in {w.namespace} cuts the API server off from the conversion of {crd.name}: reading, listing and watching it fails.",
                because=(f"{service.ref} leads to {w.ref} port {port}, which is in the mesh",),
                fix=remedy(facts, w, port),
                affects=(w.namespace,),
            )


RULE = Rule(code="MT231", title="A conversion webhook is served from inside the mesh", severity=Severity.ERROR,
            catalogue=("WH-02",), about=("CustomResourceDefinition",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)

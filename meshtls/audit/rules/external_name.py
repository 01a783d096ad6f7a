"""An ExternalName Service that points into the mesh: before Istio 1.21 its clients send plaintext."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        if service.spec.type != "ExternalName" or ".svc" not in service.spec.external_name:
            continue
        target = facts.service(service.spec.external_name, service.namespace)
        if target and any(facts.refuses(w) for w in facts.behind(target)):
            yield Flaw(
                subject=service.ref,
                path=("spec", "externalName"),
                message=f"An alias of {target.ref}: clients of an istiod before 1.21 send it plaintext, which STRICT refuses.",
                because=("ExternalName Services are aliases by default since Istio 1.21 (ENABLE_EXTERNAL_NAME_ALIAS)",),
                fix=f"Call {service.spec.external_name} itself, or make sure that every istiod is 1.21 or newer.",
                affects=(target.namespace,),
            )


RULE = Rule(code="MT220", title="An ExternalName Service points into the mesh", severity=Severity.WARNING,
            catalogue=("CL-11",), about=("Service",), needs=("Pod",), find=find)

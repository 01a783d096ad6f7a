"""An ExternalName Service that points into the mesh: with an istiod before 1.21 its clients send plaintext.

Newer ones take it for an alias, unless ENABLE_EXTERNAL_NAME_ALIAS is switched off.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

SINCE, SWITCH = (1, 21, 0), "ENABLE_EXTERNAL_NAME_ALIAS"


def find(facts: Facts) -> Iterator[Flaw]:
    off = any(e.name == SWITCH and e.value.lower() == "false" for d in facts.mesh.deployments
              for c in d.template.spec.containers for e in c.env)
    old = bool(facts.istiods) and facts.istiods[0] < SINCE
    if facts.istiods and not old and not off:
        return
    for service in facts.mesh.services:
        if service.spec.type != "ExternalName" or ".svc" not in service.spec.external_name:
            continue
        target = facts.service(service.spec.external_name, service.namespace)
        if target and any(facts.refuses(w) for w in facts.behind(target)):
            why = f"{SWITCH} is false" if off else f"istiod {'.'.join(map(str, facts.istiods[0]))}" if old else "the version of istiod is not in the input"
            yield Flaw(
                subject=service.ref,
                path=("spec", "externalName"),
                severity=None if old or off else Severity.INFO,
                message=f"An alias of {target.ref}: clients of an istiod before 1.21 send it plaintext, which STRICT refuses.",
                because=(why, "ExternalName Services are aliases by default since Istio 1.21"),
                fix=f"Call {service.spec.external_name} itself, or make sure that every istiod is 1.21 or newer.",
                affects=(target.namespace,),
            )


RULE = Rule(code="MT220", title="An ExternalName Service points into the mesh", severity=Severity.WARNING,
            catalogue=("CL-11",), about=("Service",), needs=("Pod", "Namespace", "PeerAuthentication"), find=find)

"""istiod was told to ignore PeerAuthentications (`PILOT_IGNORE_RESOURCES`)."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

VARIABLE = "PILOT_IGNORE_RESOURCES"


def find(facts: Facts) -> Iterator[Flaw]:
    for deployment in facts.mesh.deployments:
        for container in deployment.template.spec.containers:
            for env in container.env:
                if env.name == VARIABLE and any(
                        part.strip() in ("peerauthentications.security.istio.io", "*.security.istio.io") for part in env.value.split(",")):
                    yield Flaw(
                        subject=deployment.ref,
                        path=("spec", "template", "spec", "containers"),
                        message=f"This istiod ignores every PeerAuthentication: {VARIABLE} is {env.value!r}. STRICT would enforce nothing.",
                        fix=f"Take peerauthentications out of {VARIABLE} (Helm: pilot.env.{VARIABLE}).",
                    )


RULE = Rule(code="MT113", title="istiod ignores PeerAuthentications", severity=Severity.WARNING,
            catalogue=("PA-16",), about=("Deployment",), find=find)

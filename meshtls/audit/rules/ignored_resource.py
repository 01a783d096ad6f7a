"""istiod was told to ignore PeerAuthentications (`PILOT_IGNORE_RESOURCES`)."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

IGNORE, INCLUDE = "PILOT_IGNORE_RESOURCES", "PILOT_INCLUDE_RESOURCES"
RESOURCE = "peerauthentications.security.istio.io"


def find(facts: Facts) -> Iterator[Flaw]:
    for deployment in facts.mesh.deployments:
        for container in deployment.template.spec.containers:
            env = {e.name: e.value for e in container.env}
            if _covers(env.get(IGNORE, "")) and not _covers(env.get(INCLUDE, "")):
                yield Flaw(
                    subject=deployment.ref,
                    path=("spec", "template", "spec", "containers", container.name, "env", IGNORE),
                    message=f"This istiod ignores every PeerAuthentication: {IGNORE} is {env[IGNORE]!r}. STRICT would enforce nothing.",
                    fix=f"Take peerauthentications out of {IGNORE} (Helm: pilot.env.{IGNORE}).",
                )


def _covers(text: str) -> bool:
    """Does a list such as `*.istio.io` name PeerAuthentications? A star stands for any beginning."""
    parts = [part.strip() for part in text.split(",")]
    return any(part == RESOURCE or (part.startswith("*") and RESOURCE.endswith(part[1:])) for part in parts)


RULE = Rule(code="MT113", title="istiod ignores PeerAuthentications", severity=Severity.WARNING,
            catalogue=("PA-16",), about=("Deployment",), find=find)

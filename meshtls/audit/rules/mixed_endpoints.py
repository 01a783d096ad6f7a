"""A Service with endpoints with and without proxy: part of it stays open to plaintext under STRICT."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for service in facts.mesh.services:
        if service.spec.cluster_ip == "None":
            continue
        behind = facts.behind(service)
        meshed = [w for w in behind if facts.meshed(w)]
        bare = [w for w in behind if facts.plane(w) == "none"]
        if meshed and bare:
            yield Flaw(
                subject=service.ref,
                path=("spec", "selector"),
                message=f"Only part of it is in the mesh: {bare[0].label} has no proxy and answers plaintext under STRICT, {meshed[0].label} does not.",
                because=("the Service selects both",),
                fix=f"Put {bare[0].label} into the mesh: kubectl -n {bare[0].namespace} rollout restart {bare[0].kind.lower()}/{bare[0].name}",
            )


RULE = Rule(code="MT322", title="A Service has endpoints with and without proxy", severity=Severity.WARNING,
            catalogue=("SE-09",), about=("Service",), needs=("Pod", "Namespace"), find=find)

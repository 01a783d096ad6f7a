"""Metrics or logs that a migration's gates would read are switched off: no plaintext seen would prove nothing."""

from collections.abc import Iterator
from typing import Any

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

TAG = "connection_security_policy"
EVIDENCE = ("ALL_METRICS", "REQUEST_COUNT", "TCP_OPENED_CONNECTIONS", "TCP_CLOSED_CONNECTIONS")


def find(facts: Facts) -> Iterator[Flaw]:
    for obj in facts.mesh.telemetries:
        for index, entry in enumerate(obj.spec.metrics):
            for override in _list(entry.get("overrides")):
                tags = override.get("tagOverrides")
                removed = isinstance(tags, dict) and isinstance(tags.get(TAG), dict) and tags[TAG].get("operation") == "REMOVE"
                if (override.get("disabled") is True or removed) and _counted(override.get("match")):
                    where = "the mesh" if obj.namespace == facts.mesh.root else obj.namespace
                    yield Flaw(
                        subject=obj.ref,
                        path=("spec", "metrics", str(index)),
                        message=f"Hides plaintext in {where}: it {f'removes the label {TAG}' if removed else 'switches metrics off'}. "
                                "A count of no plaintext requests would mean nothing.",
                        because=("plaintext is counted by the label connection_security_policy of the server's metrics",),
                        fix=f"Remove the override while you migrate, or watch access logs instead: meshtls observe -n {obj.namespace}",
                        affects=() if obj.namespace == facts.mesh.root else (obj.namespace,),
                    )
                    break


def _counted(match: Any) -> bool:
    """Does an override reach the server's count of requests or connections?"""
    if not isinstance(match, dict):
        return True
    return match.get("mode") != "CLIENT" and match.get("metric", "ALL_METRICS") in EVIDENCE


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


RULE = Rule(code="MT132", title="The evidence of plaintext is switched off", severity=Severity.WARNING,
            catalogue=("EV-04",), about=("Telemetry",), find=find)

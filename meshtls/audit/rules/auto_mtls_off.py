"""`enableAutoMtls: false`: every meshed client sends plaintext unless a DestinationRule says otherwise."""

from collections.abc import Iterator

from meshtls.audit.destinations import settings
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

EVERYTHING = ("*", "*.local", "*.cluster.local", "*.svc.cluster.local")


def find(facts: Facts) -> Iterator[Flaw]:
    for config in facts.mesh.configs.values():
        if not config.enable_auto_mtls:
            told = next((r for r in facts.mesh.destination_rules if r.namespace == config.root_namespace and r.spec.host in EVERYTHING
                         and any(s.mode == "ISTIO_MUTUAL" and not s.subset for s in settings(r))), None)
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh", "enableAutoMtls"),
                severity=Severity.WARNING if told else None,
                message=f"Clients of revision {config.revision} use mTLS only where a DestinationRule says so: enableAutoMtls is false. "
                        + (f"{told.ref} says so for every host; where a narrower rule hides it, calls are plaintext." if told
                           else "They send plaintext to the whole mesh, and STRICT would be a total outage."),
                because=("without auto mTLS a client uses mTLS only where a DestinationRule says ISTIO_MUTUAL",),
                fix="Set meshConfig.enableAutoMtls: true first, and wait until all proxies have it.",
            )


RULE = Rule(code="MT210", title="Clients do not use mTLS by themselves", severity=Severity.CRITICAL,
            catalogue=("CL-01",), about=("MeshConfig",), needs=("ConfigMap", "DestinationRule"), find=find)

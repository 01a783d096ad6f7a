"""`enableAutoMtls: false`: every meshed client sends plaintext unless a DestinationRule says otherwise."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for config in facts.mesh.configs.values():
        if not config.enable_auto_mtls:
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh"),
                message=f"Clients of revision {config.revision} send plaintext to the whole mesh: enableAutoMtls is false. STRICT would be a total outage.",
                because=("without auto mTLS a client uses mTLS only where a DestinationRule says ISTIO_MUTUAL",),
                fix="Set meshConfig.enableAutoMtls: true first, and wait until all proxies have it.",
            )


RULE = Rule(code="MT210", title="Clients do not use mTLS by themselves", severity=Severity.CRITICAL,
            catalogue=("CL-01",), about=("MeshConfig",), needs=("ConfigMap",), find=find)

"""A raised minimum TLS version, or a list of ciphers, refuses clients that bring the mesh's certificate with an older TLS stack."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for config in facts.mesh.configs.values():
        version = config.mesh_mtls.min_protocol_version
        if version not in ("", "TLS_AUTO", "TLSV1_2"):
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh", "meshMTLS", "minProtocolVersion"),
                message=f"mTLS demands {version}: clients that bring the mesh's certificate with an older TLS are refused. Sidecars are fine.",
                fix="meshMTLS:\n  minProtocolVersion: TLSV1_2",
            )
        elif config.mesh_mtls.cipher_suites:
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh", "meshMTLS", "cipherSuites"),
                message=f"mTLS takes only {', '.join(config.mesh_mtls.cipher_suites[:3])}: clients that bring the mesh's certificate and lack these are refused. Sidecars are fine.",
            )


RULE = Rule(code="MT403", title="The mesh demands a newer TLS than some clients have", severity=Severity.INFO,
            catalogue=("CL-18",), about=("MeshConfig",), needs=("ConfigMap",), find=find)

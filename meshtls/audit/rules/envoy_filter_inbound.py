"""An EnvoyFilter that changes inbound listeners or filter chains can undo what PeerAuthentication sets up."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

TOUCHES = ("LISTENER", "FILTER_CHAIN", "LISTENER_FILTER")


def find(facts: Facts) -> Iterator[Flaw]:
    for obj in facts.mesh.envoy_filters:
        for index, patch in enumerate(obj.spec.config_patches):
            context = patch.match.context if patch.match else "ANY"
            if context in ("SIDECAR_INBOUND", "ANY") and patch.apply_to in TOUCHES:
                where = "every workload" if obj.spec.workload_selector is None else "the workloads it selects"
                yield Flaw(
                    subject=obj.ref,
                    path=("spec", "configPatches", str(index)),
                    message=f"Changes {patch.apply_to} of inbound traffic of {where} in {'the mesh' if obj.namespace == facts.mesh.root else obj.namespace}: "
                            "whether STRICT holds there cannot be told from objects.",
                    because=("the filter chains are where STRICT is enforced",),
                    fix="Prove it on the wire after the switch: meshtls probe",
                )
                break


RULE = Rule(code="MT127", title="An EnvoyFilter changes how inbound connections are accepted", severity=Severity.WARNING,
            catalogue=("EF-01",), about=("EnvoyFilter",), find=find)

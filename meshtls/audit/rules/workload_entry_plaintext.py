"""A WorkloadEntry with neither a service account nor the label that announces mTLS gets plaintext, and brings none."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for entry in facts.mesh.workload_entries:
        label = entry.spec.labels.get("security.istio.io/tlsMode")
        if label == "istio" or (label is None and entry.spec.service_account):
            continue
        yield Flaw(
            subject=entry.ref,
            path=("spec", "serviceAccount"),
            message=f"{entry.spec.address or entry.name} counts as outside the mesh: clients send it plaintext, and what it sends STRICT refuses.",
            because=("a WorkloadEntry is in the mesh with a serviceAccount, or with the label security.istio.io/tlsMode: istio",),
            fix="If a proxy runs there, say who it is:\nspec:\n  serviceAccount: NAME\nIf none does, keep what it calls open:\n  meshtls predict --strict NAMESPACE",
        )


RULE = Rule(code="MT219", title="A WorkloadEntry is outside the mesh", severity=Severity.WARNING,
            catalogue=("CL-10", "NC-07"), about=("WorkloadEntry",), find=find)

"""Pod Security refuses pods with a sidecar where istio-cni is not installed: istio-init needs NET_ADMIN and root."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

LABEL = "pod-security.kubernetes.io/enforce"


def find(facts: Facts) -> Iterator[Flaw]:
    if any("istio-cni" in d.name for d in facts.mesh.daemon_sets):
        return
    for namespace in facts.mesh.namespaces:
        level = namespace.labels.get(LABEL)
        injects = namespace.labels.get("istio-injection") == "enabled" or ("istio.io/rev" in namespace.labels and "istio-injection" not in namespace.labels)
        if level not in ("baseline", "restricted") or not injects:
            continue
        if any(facts.sidecar(w) and w.pods for w in facts.workloads_in.get(namespace.name, ())):
            continue
        if not facts.mesh.live and not facts.mesh.daemon_sets:
            severity: Severity | None = Severity.INFO
        else:
            severity = None
        yield Flaw(
            subject=namespace.ref,
            path=("metadata", "labels", LABEL),
            severity=severity,
            message=f"Pod Security {level} refuses every pod with a sidecar here, unless istio-cni is installed: istio-init needs NET_ADMIN, NET_RAW and root.",
            because=("the namespace injects", "no DaemonSet istio-cni is in the input"),
            fix="Install istio-cni (Helm: istio/cni, and pilot.cni.enabled=true), which takes istio-init's place.",
        )


RULE = Rule(code="MT321", title="Pod Security refuses the sidecar", severity=Severity.WARNING,
            catalogue=("PP-01",), about=("Namespace",), needs=("DaemonSet", "Pod"), find=find)

"""Pods with addresses of two families and a proxy that redirects one: the other skips the sidecar."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

VARIABLE = "ISTIO_DUAL_STACK"


def find(facts: Facts) -> Iterator[Flaw]:
    if facts.mesh.config.default_config.proxy_metadata.get(VARIABLE) == "true":
        return
    if any(e.name == VARIABLE and e.value == "true" for d in facts.mesh.deployments if d.name.startswith("istiod")
           for c in d.template.spec.containers for e in c.env):
        return
    for w in facts.sidecars:
        for pod in facts.faces(w):
            families = {":" in entry.ip for entry in pod.status.pod_ips}
            if len(families) == 2 and VARIABLE not in pod.metadata.annotations.get("proxy.istio.io/config", ""):
                other = pod.status.pod_ips[-1].ip
                yield Flaw(
                    subject=w.ref,
                    message=f"Calls to the second address family of {w.label} ({other}) may skip its sidecar: STRICT would not hold there.",
                    because=(f"the pod has {len(pod.status.pod_ips)} addresses of two families, and {VARIABLE} is not set",),
                    fix=f"Set {VARIABLE}: \"true\" for istiod and in meshConfig.defaultConfig.proxyMetadata, and restart the workload.",
                )
                break


RULE = Rule(code="MT311", title="One of two address families skips the sidecar", severity=Severity.WARNING,
            catalogue=("IN-13",), about=("Pod",), needs=("ConfigMap", "Namespace"), find=find)

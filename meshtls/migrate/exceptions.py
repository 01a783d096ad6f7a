"""The smallest PeerAuthentication that sets the mode of some ports of one workload: what keeps a client that STRICT would lose, or
one that only STRICT takes.

Where a policy selects the workload already, it is that policy with the ports added: a second, younger one would count for nothing.
On a captured workload that is STRICT already, the mode is written out: without it, such a policy could open every port.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from meshtls.migrate.plan import common_labels
from meshtls.model.mesh import Mesh
from meshtls.model.objects import LabelSelector
from meshtls.model.workload import Workload
from meshtls.policy.authn import STRICT, UNSET, Authn, mode_of
from meshtls.policy.select import subset


def exception(mesh: Mesh, authn: Authn, workload: Workload, ports: Mapping[int, str]) -> dict[str, Any] | str:
    """The object, by `ports` (target port -> mode); or why there is none that would concern this workload alone."""
    labels = common_labels(workload.faces)
    captured = any(pod.captured for pod in workload.pods)
    own = authn.selects(workload.namespace, labels)
    strict = captured and authn.effective(workload.namespace, labels).mode == STRICT
    if own:
        oldest = own[0]
        selector = dict(oldest.spec.selector.match_labels) if oldest.spec.selector else {}
        name, mode = oldest.name, mode_of(oldest)
        said = {port: entry.mode for port, entry in oldest.spec.port_level_mtls.items()}
    else:
        selector, name, mode, said = _selector(workload, labels), f"{workload.name}-ports"[:253], UNSET, {}
        others = [w for w in mesh.workloads if w.namespace == workload.namespace and w.ref != workload.ref]
        if not selector or any(subset(selector, pod.labels) for other in others for pod in other.faces):
            return f"{workload.ref} has no labels of its own to select it by"
    spec: dict[str, Any] = {"selector": {"matchLabels": selector}}
    if mode != UNSET or strict:
        spec["mtls"] = {"mode": STRICT if mode == UNSET else mode}
    spec["portLevelMtls"] = {port: {"mode": each} for port, each in sorted((said | {str(p): m for p, m in ports.items()}).items())}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": workload.namespace}, "spec": spec}  # fmt: skip


def manifest(obj: dict[str, Any]) -> str:
    """The object as YAML to apply."""
    return str(yaml.safe_dump(obj, sort_keys=False))


def _selector(workload: Workload, labels: dict[str, str]) -> dict[str, str]:
    wanted = getattr(getattr(workload.owner, "spec", None), "selector", None)
    if isinstance(wanted, LabelSelector) and wanted.match_labels:
        return {key: value for key, value in wanted.match_labels.items() if key != "pod-template-hash"}
    return labels

"""The smallest PeerAuthentication that sets the mode of some ports of one workload: what keeps a client that STRICT would lose, or
one that only STRICT takes.

Where a policy selects the workload already, it is that policy with the ports added: a second, younger one would count for nothing.
On a captured workload that is STRICT already, the mode is written out: without it, such a policy could open every port.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from meshtls.migrate.plan import common_labels
from meshtls.model.mesh import Mesh
from meshtls.model.objects import LabelSelector
from meshtls.model.workload import Workload
from meshtls.policy.authn import PERMISSIVE, STRICT, UNSET, Authn, mode_of, ports_of
from meshtls.policy.engine import Engine
from meshtls.policy.select import subset
from meshtls.policy.server import Servers


def exception(
    mesh: Mesh, authn: Authn, workload: Workload, ports: Mapping[int, str], mended: Mapping[tuple[str, str], dict[str, str]] = {}
) -> dict[str, Any] | str:
    """The object, by `ports` (target port -> mode); or why there is none that would concern this workload alone.

    `mended` are modes of ports, by (namespace, name) of a policy, in place of those that it has: where some of those are wrong.
    """
    labels = common_labels(workload.faces)
    captured = any(pod.captured for pod in workload.pods)
    own = authn.selects(workload.namespace, labels)
    strict = captured and authn.effective(workload.namespace, labels).mode == STRICT
    if own:
        oldest = own[0]
        selector = dict(oldest.spec.selector.match_labels) if oldest.spec.selector else {}
        name, mode = oldest.name, mode_of(oldest)
        said = mended.get((workload.namespace, name)) or {port: entry.mode for port, entry in oldest.spec.port_level_mtls.items()}
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


def proposed(fix: str) -> dict[str, Any] | None:
    """The PeerAuthentication with modes of ports in the text of a fix, if there is one."""
    _, found, text = fix.partition("apiVersion: security.istio.io/")
    try:
        obj = yaml.safe_load(f"apiVersion: security.istio.io/{text}") if found else None
    except yaml.YAMLError:
        return None
    good = isinstance(obj, dict) and obj.get("kind") == "PeerAuthentication" and (obj.get("spec") or {}).get("portLevelMtls")
    return obj if good else None


def modes_in(obj: dict[str, Any]) -> dict[str, str]:
    """Port -> mode, as a PeerAuthentication has them."""
    return {str(port): said["mode"] for port, said in obj["spec"]["portLevelMtls"].items()}


def ports_in(mesh: Mesh, fix: str) -> Iterator[tuple[Workload, int]]:
    """(workload, port) that a fix opens, and that the policy which is there does not open already."""
    obj = proposed(fix)
    if obj is None:
        return
    meta = obj["metadata"]
    there = next((p for p in mesh.peer_authentications if (p.namespace, p.name) == (meta["namespace"], meta["name"])), None)
    already = {port for port, mode in ports_of(there).items() if mode == PERMISSIVE} if there else set()
    selector = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    ports = [int(port) for port, mode in modes_in(obj).items() if mode == PERMISSIVE and port.isdecimal() and int(port) not in already]
    for workload in mesh.workloads:
        if workload.namespace == obj["metadata"]["namespace"] and selector and any(subset(selector, pod.labels) for pod in workload.faces):
            yield from ((workload, port) for port in ports)


class Doors:
    """Which ports of a mesh take plaintext. Ask it of the mesh as it would be: `Doors(strict(mesh, [namespace]))`."""

    def __init__(self, mesh: Mesh) -> None:
        self._engine = Engine.of(mesh)
        self._servers = Servers(self._engine)

    def open(self, workload: str, port: int) -> bool:
        """Whether a target port of a workload (its ref) takes plaintext at each of its pods; False for one that is not known."""
        faces = self._engine.faces.get(workload, ())
        return bool(faces) and all(self._servers.of(face.pod).inbound(port).mode != STRICT for face in faces)


def _selector(workload: Workload, labels: dict[str, str]) -> dict[str, str]:
    wanted = getattr(getattr(workload.owner, "spec", None), "selector", None)
    if isinstance(wanted, LabelSelector) and wanted.match_labels:
        return {key: value for key, value in wanted.match_labels.items() if key != "pod-template-hash"}
    return labels

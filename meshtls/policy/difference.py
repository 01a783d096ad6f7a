"""The difference between two meshes: what their workloads enforce, and which calls have another outcome."""

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.policy.because import Because
from meshtls.policy.predict import Group, groups
from meshtls.policy.server import WorkloadMode, modes


class ModeChange(msgspec.Struct, frozen=True):
    """One workload and port ("*": every port that nothing declares). `before` or `after` is "" where there is none.

    `planes` are the data planes of the workload before and after, "" where it does not exist.
    """

    workload: str
    port: str
    before: str
    after: str
    because: tuple[Because, ...]
    planes: tuple[str, str] = ("", "")


def mode_changes(before: Mesh, after: Mesh, namespaces: frozenset[str] | None = None) -> list[ModeChange]:
    """Every port whose mode differs, ordered by workload and port."""
    old = {_ref(m): m for m in modes(before, namespaces)}
    new = {_ref(m): m for m in modes(after, namespaces)}
    found = []
    for ref in sorted(old.keys() | new.keys()):
        was, now = old.get(ref), new.get(ref)
        ports = sorted({*(was.ports if was else ()), *(now.ports if now else ())}, key=int)
        for port in ("*", *ports):
            a, b = _mode(was, port), _mode(now, port)
            if a != b:
                whose = now or was
                planes = was.dataplane if was else "", now.dataplane if now else ""
                found.append(ModeChange(ref, port, a, b, whose.because if whose else (), planes))
    return found


def as_templates_say(mesh: Mesh) -> Mesh:
    """The mesh once every workload has been rolled out anew: pods that a template makes are left to their template."""
    templated = {(pod.namespace, pod.name) for w in mesh.workloads if w.template is not None for pod in w.pods}
    if not templated:
        return mesh
    return msgspec.structs.replace(mesh, pods=tuple(pod for pod in mesh.pods if (pod.namespace, pod.name) not in templated))


def _ref(mode: WorkloadMode) -> str:
    kind, _, name = mode.workload.partition("/")
    return f"{kind}/{mode.namespace}/{name}"


def _mode(mode: WorkloadMode | None, port: str) -> str:
    if mode is None:
        return ""
    return mode.mode if port == "*" else mode.ports.get(port, mode.mode)


def call_changes(
    before: Mesh, after: Mesh, namespaces: frozenset[str] | None = None, servers: frozenset[str] | None = None
) -> list[Group]:
    """Every call that exists in both or only in `after`, with another outcome than `before`; with `servers`, to these namespaces."""
    return list(groups(after, before, namespaces=namespaces, server_namespaces=servers))


def gone_calls(before: Mesh, after: Mesh, namespaces: frozenset[str] | None = None) -> list[Group]:
    """Every call that exists in `before` only."""
    return [g for g in groups(before, after, namespaces=namespaces) if g.was is None]

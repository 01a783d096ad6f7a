"""The shape of a workload: all that its mode can depend on. Workloads of one shape share one answer.

In a shape: the namespace, the labels that any selector there or the injector looks at, the annotations that change what is
captured, the ports of its containers, and the Services that select it. A workload whose pods differ in that has no shape.
"""

from functools import cached_property

from meshtls.model.mesh import pod_addresses
from meshtls.model.objects import Pod, PodTemplate
from meshtls.model.workload import Workload
from meshtls.policy.engine import Engine
from meshtls.policy.select import subset

_ALWAYS = (
    "security.istio.io/tlsMode", "sidecar.istio.io/inject", "istio.io/rev", "istio.io/dataplane-mode", "gateway.istio.io/managed",
    "gateway.networking.k8s.io/gateway-name",
)  # fmt: skip


class Shapes:
    """Shapes of the workloads of one mesh. A mesh whose answers depend on more has none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._labels: dict[str, tuple[str, ...]] = {}
        self._selecting: dict[str, dict[tuple[str, str], list[tuple[int, dict[str, str]]]]] = {}
        for number, service in enumerate(engine.mesh.services):
            for item in service.spec.selector.items():
                table = self._selecting.setdefault(service.metadata.namespace, {})
                table.setdefault(item, []).append((number, service.spec.selector))
                break

    @cached_property
    def _extra(self) -> frozenset[str]:
        """Labels that the injector's own selectors look at."""
        hooks = [h for c in self._engine.mesh.mutating_webhooks for h in c.webhooks]
        selectors = [h.object_selector for h in hooks] + list(self._engine.injector.selectors)
        return frozenset(k for s in selectors for k in (*s.match_labels, *(e.key for e in s.match_expressions)))

    @cached_property
    def _simple(self) -> bool:
        """Whether nothing but Services, policies and Sidecars decides: no ServiceEntry that selects or writes a pod's address, no
        Service without selector."""
        mesh = self._engine.mesh
        written = {e.address for entry in mesh.service_entries for e in entry.spec.endpoints}
        if written and any(a in written for p in mesh.pods for a in pod_addresses(p)):
            return False
        return not any(e.spec.workload_selector for e in mesh.service_entries) and all(
            s.spec.selector or s.spec.type == "ExternalName" for s in mesh.services
        )

    def _keys(self, namespace: str) -> tuple[str, ...]:
        found = self._labels.get(namespace)
        if found is None:
            keys = set(_ALWAYS) | self._extra
            for policy in self._engine.mesh.peer_authentications:
                if policy.spec.selector is not None:
                    keys.update(policy.spec.selector.match_labels)
            for sidecar in self._engine.mesh.sidecars:
                if sidecar.spec.workload_selector is not None:
                    keys.update(sidecar.spec.workload_selector.labels)
            found = tuple(sorted(keys))
            self._labels = dict.fromkeys(self._engine.mesh.namespace_labels, found)
            self._labels[namespace] = found
        return found

    def of(self, workload: Workload) -> object | None:
        """The shape, None where it has none."""
        if not self._simple:
            return None
        if workload.pods:
            first = self._one(workload.namespace, workload.pods[0], True)
            if first is None or any(self._one(workload.namespace, p, True) != first for p in workload.pods[1:]):
                return None
            return first
        return self._one(workload.namespace, workload.template, False) if workload.template is not None else None

    def _one(self, namespace: str, pod: Pod | PodTemplate, runs: bool) -> object | None:
        labels, spec = pod.metadata.labels, pod.spec
        notes = pod.metadata.annotations
        if notes and any(_counts(key) for key in notes):
            return None
        served = []
        table = self._selecting.get(namespace)
        if table:
            for item in labels.items():
                for number, selector in table.get(item, ()):
                    if subset(selector, labels):
                        served.append(number)
        containers, inits = spec.containers, spec.init_containers
        return (
            namespace,
            runs,
            spec.host_network,
            tuple(served),
            tuple([labels.get(k) for k in self._keys(namespace)]),
            tuple([(c.name == "istio-proxy", c.ports, c.args) for c in containers]) if containers else (),
            tuple([(c.name == "istio-proxy", c.restart_policy, c.ports, c.args) for c in inits]) if inits else (),
            notes.get("sidecar.istio.io/status") if notes else None,
            notes.get("sidecar.istio.io/inject") if notes else None,
            notes.get("ambient.istio.io/redirection") if notes else None,
            pod.status.phase in ("Succeeded", "Failed") if isinstance(pod, Pod) else False,
            (not pod.metadata.uid, pod.status.phase == "") if isinstance(pod, Pod) else None,
        )


def _counts(annotation: str) -> bool:
    """Whether an annotation changes what a proxy captures or what the pod is; the few that every pod has are in the shape."""
    if "istio.io/" not in annotation:
        return False
    return annotation not in ("sidecar.istio.io/status", "sidecar.istio.io/inject", "ambient.istio.io/redirection") and annotation.startswith(
        ("traffic.sidecar", "sidecar.istio", "inject.istio", "ambient.istio", "istio.io/")
    )

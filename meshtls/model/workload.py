"""A workload: what one owner runs, whether its pods are in the input, only its template, or both.

Pods are joined to their owner through `ownerReferences` by kind, namespace and name: Pod -> ReplicaSet -> Deployment,
Pod -> Job -> CronJob. A ReplicaSet that is not in the input still names its Deployment where the pod carries the
`pod-template-hash` that ends the ReplicaSet's name. A pod without owner is its own workload. Owner cycles end at the
first repetition. The newest template wins: of a Deployment, the Deployment's own.
"""

from collections.abc import Iterable

import msgspec

from meshtls.model.objects import Object, Pod, PodTemplate


class Workload(msgspec.Struct, frozen=True, gc=False):
    """`template` is None where only pods are known; `pods` is empty where nothing runs or pods are not in the input."""

    kind: str
    namespace: str
    name: str
    template: PodTemplate | None
    pods: tuple[Pod, ...]
    owner: Object | None

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def label(self) -> str:
        """`Kind/name`, as lists within one namespace show it."""
        return f"{self.kind}/{self.name}"

    @property
    def faces(self) -> tuple[Pod, ...]:
        """The pods it is judged by: those that run, or one made from the template (its name is the workload's)."""
        if self.pods or self.template is None:
            return self.pods
        meta = self.template.metadata
        return (
            Pod(
                metadata=msgspec.structs.replace(meta, name=self.name, namespace=self.namespace),
                spec=self.template.spec,
            ),
        )


# a workload of the first kind that is owned by one of the second is only a step on the way
_STEPS = {"ReplicaSet": ("Deployment",), "Job": ("CronJob",)}


def _controller(obj: Object) -> tuple[str, str] | None:
    """(kind, name) of the controlling owner."""
    owners = obj.metadata.owner_references
    if not owners:
        return None
    for owner in owners:
        if owner.controller:
            return owner.kind, owner.name
    return owners[0].kind, owners[0].name


def _top(pod: Pod, owners: dict[tuple[str, str, str], Object]) -> tuple[str, str, str]:
    """(kind, namespace, name) of the workload that a pod belongs to."""
    namespace = pod.metadata.namespace
    seen: set[tuple[str, str]] = set()
    current: tuple[str, str] = ("Pod", pod.metadata.name)
    step: Object | None = pod
    while step is not None and current not in seen:
        seen.add(current)
        above = _controller(step)
        if above is None:
            break
        if above[0] == "Node":
            break
        current = above
        step = owners.get((above[0], namespace, above[1]))
    kind, name = current
    if kind == "ReplicaSet" and step is None:
        hash_ = pod.metadata.labels.get("pod-template-hash", "")
        if hash_ and name.endswith(f"-{hash_}"):
            return "Deployment", namespace, name[: -len(hash_) - 1]
    return kind, namespace, name


def group(pods: Iterable[Pod], templated: Iterable[Object]) -> tuple[Workload, ...]:
    """Every workload, ordered by namespace, kind and name. ReplicaSets and Jobs that another workload owns are folded."""
    owners: dict[tuple[str, str, str], Object] = {}
    for obj in templated:
        owners.setdefault((obj.kind, obj.namespace, obj.name), obj)
    pods_of: dict[tuple[str, str, str], list[Pod]] = {}
    tops: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for pod in pods:
        meta = pod.metadata
        refs = meta.owner_references
        if len(refs) == 1:
            by = (refs[0].kind, meta.namespace, refs[0].name)
            top = tops.get(by)
            if top is None:
                top = tops[by] = _top(pod, owners)
        else:
            top = _top(pod, owners)
        pods_of.setdefault(top, []).append(pod)

    found: list[Workload] = []
    for key, obj in owners.items():
        above = _controller(obj)
        if above is not None and above[0] in _STEPS.get(obj.kind, ()):
            if key not in pods_of:
                continue
        if obj.kind == "ReplicaSet" and not obj.spec.replicas and obj.spec.replicas is not None and key not in pods_of:  # type: ignore[attr-defined]
            if above is not None:
                continue
        found.append(Workload(*key, obj.template, tuple(pods_of.pop(key, ())), obj))  # type: ignore[attr-defined]
    found.extend(Workload(*key, None, tuple(members), owners.get(key)) for key, members in pods_of.items())
    found.sort(key=lambda w: (w.namespace, w.kind, w.name))
    return tuple(found)

"""A workload that may undo its own interception: privileged, with NET_ADMIN or the like, or with a debug container attached.

STRICT promises that nobody gets past another pod's sidecar; what a pod does with its own network is its own business.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, inside
from meshtls.audit.hints import ISTIO
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity

CAPABILITIES = frozenset({"ALL", "NET_ADMIN", "SYS_ADMIN"})


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.in_mesh:
        face = facts.face(w)
        for field, containers in (("containers", application(face)), ("initContainers", face.spec.init_containers)):
            for container in containers:
                why = "" if container.name in ISTIO else _may(container, face.spec)
                if why:
                    yield Flaw(
                        subject=w.ref,
                        path=inside(w, "spec", field, container.name, "securityContext"),
                        message=f"Container {container.name} of {w.label} {why}: it can change the interception of its own pod, so that plaintext gets in and out "
                                "whatever the mode is.",
                        because=("interception is a set of rules in the pod's own network",),
                        fix="securityContext:\n  privileged: false\n  capabilities:\n    drop: [ALL]",
                    )
        for pod in w.pods:
            if pod.spec.ephemeral_containers:
                yield Flaw(
                    subject=w.ref,
                    path=("spec", "ephemeralContainers", pod.name),
                    severity=Severity.INFO,
                    message=f"A debug container ({pod.spec.ephemeral_containers[0].name}) is attached to pod {pod.name}: what it sends over loopback passes no proxy.",
                    because=("containers of one pod share its network",),
                )
                break


def _may(container: o.Container, spec: o.PodSpec) -> str:
    context = container.security_context
    if context is None:
        return ""
    if context.privileged:
        return "is privileged" + (" and sees the node's processes" if spec.host_pid else "")
    added = context.capabilities.add if context.capabilities else ()
    names = [name for name in (a.upper().removeprefix("CAP_") for a in added) if name in CAPABILITIES]
    return f"has the capability {', '.join(names)}" if names else ""


RULE = Rule(code="MT323", title="A workload may undo its own interception", severity=Severity.WARNING,
            catalogue=("SE-08",), about=WORKLOADS, needs=("Namespace",), find=find)

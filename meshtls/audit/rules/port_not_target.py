"""`portLevelMtls` is keyed on a Service's port where the pod listens on another: the exception does nothing.

Istio looks the key up by the target port. A key that neither a Service nor a container names may still be a real port that
nobody declared; that is only mentioned. Where the pod's port has the same mode of its own, the key is merely spare.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, number, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        if not policy.spec.port_level_mtls or not selective(policy) or policy.namespace == facts.mesh.root:
            continue
        wanted = policy.spec.selector.match_labels  # type: ignore[union-attr]
        workloads = [w for w in facts.selected(policy.namespace, wanted) if facts.ports(w)]
        for key, setting in policy.spec.port_level_mtls.items():
            port = number(key)
            if not port:
                yield Flaw(
                    subject=policy.ref, path=("spec", "portLevelMtls", key), severity=Severity.WARNING,
                    message=f"{setting.mode} for port {key!r} does nothing: that is no port number.",
                    because=("portLevelMtls is keyed on port numbers",), fix="Key the entry on the number of the pod's port.",
                )  # fmt: skip
            if not port or not workloads or any(port in facts.ports(w) for w in workloads):
                continue
            yield next((flaw for w in workloads if (flaw := _of_service(facts, policy, key, setting.mode, w))), None) or Flaw(
                subject=policy.ref,
                path=("spec", "portLevelMtls", key),
                severity=Severity.INFO,
                message=f"{setting.mode} for port {key}: neither {workloads[0].label} nor a Service of it declares that port.",
                because=(f"declared are {', '.join(map(str, sorted(facts.ports(workloads[0]))))}",),
            )


def _of_service(facts: Facts, policy: o.PeerAuthentication, key: str, mode: str, w: Workload) -> Flaw | None:
    """The flaw where `key` is the port of a Service that leads elsewhere."""
    meant = [(s, facts.target(p, w)) for s in facts.services_of.get(w.ref, ()) for p in s.spec.ports if str(p.port) == key]
    service, target = next(((s, t) for s, t in meant if t), (None, 0))
    if service is None:
        return None
    own = policy.spec.port_level_mtls.get(str(target))
    spare = own is not None and own.mode == mode
    entries = {str(target) if k == key else k: m.mode for k, m in policy.spec.port_level_mtls.items() if k != key or not spare}
    return Flaw(
        subject=policy.ref,
        path=("spec", "portLevelMtls", key),
        severity=Severity.WARNING if spare or mode in ("STRICT", "UNSET") else None,
        message=f"{mode} for port {key} does nothing: {key} is the port of {service.ref}, {w.label} listens on {target}.",
        because=("portLevelMtls is keyed on the port of the workload, not on that of a Service",
                 f"{service.ref} sends its port {key} to port {target} of {w.ref}"),
        fix=(f"Take it out, {target} has an entry of its own:\n" if spare else f"Key the entry on {target}:\n") + say.with_ports(policy, entries),
    )


RULE = Rule(code="MT104", title="A port exception is keyed on the Service's port instead of the pod's", severity=Severity.ERROR,
            catalogue=("PA-06",), about=("PeerAuthentication",), needs=("Service", "Pod"),
            find=find)

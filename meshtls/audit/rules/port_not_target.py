"""`portLevelMtls` is keyed on a Service's port where the pod listens on another: the exception does nothing.

Istio looks the key up by the target port (LI:ForPort(TargetPort)). A key that neither a Service nor a container names may
still be a real, undeclared port, so that is said only where it is a Service's own port, or where the pod declares ports.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        if not policy.spec.port_level_mtls or not selective(policy) or policy.namespace == facts.mesh.root:
            continue
        wanted = policy.spec.selector.match_labels  # type: ignore[union-attr]
        workloads = list(facts.selected(policy.namespace, wanted))
        for key, setting in policy.spec.port_level_mtls.items():
            for w in workloads:
                ports = facts.ports(w)
                if not ports or not key.isdigit() or int(key) in ports:
                    continue
                meant = [(s, facts.target(p, w)) for s in facts.services_of.get(w.ref, ()) for p in s.spec.ports if p.port == int(key)]
                real = [(s, target) for s, target in meant if target]
                if not real:
                    continue
                service, target = real[0]
                yield Flaw(
                    subject=policy.ref,
                    path=("spec", "portLevelMtls", key),
                    message=f"{setting.mode} for port {key} does nothing: {key} is the port of {service.ref}, {w.label} listens on {target}.",
                    because=("portLevelMtls is keyed on the port of the workload, not on that of a Service",
                             f"{service.ref} sends its port {key} to port {target} of {w.ref}"),
                    fix=f"Key the entry on {target}:\n" + say.policy(
                        policy.namespace, policy.name, "portLevelMtls:\n" + f'  "{target}":\n    mode: {setting.mode}'),
                )
                break


RULE = Rule(code="MT104", title="A port exception is keyed on the Service's port instead of the pod's", severity=Severity.ERROR,
            catalogue=("PA-06",), about=("PeerAuthentication",), needs=("Service",), find=find)

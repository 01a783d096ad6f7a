"""Ambient: a STRICT mesh opens a port that a workload's own policy makes STRICT.

The mesh is STRICT, the namespace says nothing, the workload's policy is PERMISSIVE (or DISABLE) with a STRICT port: the workload
then refers to a converted policy that istiod does not publish (convertPeerAuthentication skips the port, taking its parent to
be STRICT), ztunnel skips the unknown policy, and plaintext is accepted. Without the mesh's policy the port is enforced.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Confidence, Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    root = facts.wide(facts.mesh.root)
    if root is None or mode(root) != "STRICT" or root.spec.selector is not None:
        return
    for w in facts.ambient:
        if not (own := facts.own(w)) or mode(own[0]) not in ("PERMISSIVE", "DISABLE"):
            continue
        namespace = facts.wide(w.namespace)
        if namespace is not None and mode(namespace) != "UNSET":
            continue
        strict = sorted(port for port, entry in own[0].spec.port_level_mtls.items() if entry.mode == "STRICT")
        if strict:
            yield Flaw(
                subject=own[0].ref,
                path=("spec", "portLevelMtls", strict[0]),
                message=f"Port {', '.join(strict)} of {w.label} accepts plaintext although its own policy and the mesh say STRICT.",
                because=(f"{root.ref} makes the mesh STRICT and namespace {w.namespace} sets no mode",
                         f"{own[0].ref} says {mode(own[0])} with STRICT ports, on an ambient workload",
                         f"istiod never publishes the converted policy that the workload refers to; ztunnel logs: skipping unknown policy "
                         f"{w.namespace}/converted_peer_authentication_{own[0].name}"),
                fix=f"Give the namespace a mode of its own; then the port is enforced:\n"
                    f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {namespace.name if namespace else 'default'}\n"
                    f"  namespace: {w.namespace}\nspec:\n  mtls:\n    mode: {mode(own[0])}\n",
            )


RULE = Rule(code="MT121", title="A STRICT mesh opens a STRICT port of an ambient workload", severity=Severity.CRITICAL,
            confidence=Confidence.MEASURED, catalogue=("AM-17",), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)

"""Ambient: a STRICT mesh opens a port that a workload's own policy makes STRICT.

The mesh is STRICT, the namespace says nothing, the workload's policy is PERMISSIVE (or DISABLE) with a STRICT port: the workload
then refers to a converted policy that istiod does not publish (convertPeerAuthentication skips the port, taking its parent to
be STRICT), ztunnel skips the unknown policy, and plaintext is accepted. Without the mesh's policy the port is enforced.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.ambient:
        missing = facts.effective(w).missing
        if not missing:
            continue
        own, root, namespace = facts.own(w)[0], facts.wide(facts.mesh.root), facts.wide(w.namespace)
        if mode(own) == "UNSET":
            continue
        strict = sorted(port for port, entry in own.spec.port_level_mtls.items() if entry.mode == "STRICT")
        yield Flaw(
            subject=own.ref,
            path=("spec", "portLevelMtls", strict[0]),
            message=f"Port {', '.join(strict)} of {w.label} accepts plaintext although its own policy and the mesh say STRICT.",
            because=(f"{root.ref if root else 'the mesh'} makes the mesh STRICT and namespace {w.namespace} sets no mode",
                     f"{own.ref} says {mode(own)} with STRICT ports, on an ambient workload",
                     f"istiod never publishes the converted policy that the workload refers to; ztunnel logs: skipping unknown policy {missing}"),
            fix=f"Give the namespace a mode of its own; then the port is enforced:\n"
                f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {namespace.name if namespace else 'default'}\n"
                f"  namespace: {w.namespace}\nspec:\n  mtls:\n    mode: PERMISSIVE\n",
        )


RULE = Rule(code="MT121", title="A STRICT mesh opens a STRICT port of an ambient workload", severity=Severity.CRITICAL,
            catalogue=("AM-17",), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)

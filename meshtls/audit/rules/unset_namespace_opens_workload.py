"""Ambient: an empty namespace policy and a PERMISSIVE port exception open every port of the workload.

The mesh is STRICT, the namespace's policy sets no mode, the workload's policy sets no mode either and makes one port PERMISSIVE:
the workload refers to a converted policy that istiod does not publish, in place of the static STRICT one.
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
    for w in facts.workloads:
        namespace = facts.wide(w.namespace)
        if namespace is None or mode(namespace) != "UNSET" or w.namespace == facts.mesh.root or facts.plane(w) != "ambient":
            continue
        own = facts.own(w)
        if not own or mode(own[0]) != "UNSET":
            continue
        if any(entry.mode == "PERMISSIVE" for entry in own[0].spec.port_level_mtls.values()):
            yield Flaw(
                subject=namespace.ref,
                path=("spec",),
                message=f"Every port of {w.label} accepts plaintext although the mesh is STRICT: this policy sets no mode, "
                        f"and {own[0].ref} excepts a port.",
                because=(f"{root.ref} makes the mesh STRICT", f"{namespace.ref} exists and sets no mode",
                         f"{own[0].ref} has a PERMISSIVE port and no mode of its own, on an ambient workload",
                         f"istiod never publishes the converted policy that the workload refers to; ztunnel logs: skipping unknown policy "
                         f"{w.namespace}/converted_peer_authentication_{own[0].name}"),
                fix=f"Say STRICT in the namespace's policy, or delete it:\n  kubectl -n {w.namespace} patch peerauthentication {namespace.name} "
                    "--type=merge -p '{\"spec\":{\"mtls\":{\"mode\":\"STRICT\"}}}'",
            )


RULE = Rule(code="MT122", title="An empty namespace policy opens an ambient workload under a STRICT mesh", severity=Severity.CRITICAL,
            confidence=Confidence.MEASURED, catalogue=("AM-18",), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)

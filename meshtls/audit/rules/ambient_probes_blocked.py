"""Ambient: a NetworkPolicy must let in 169.254.7.127 (the kubelet's probes) and TCP 15008 (mTLS itself)."""

import ipaddress
from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity
from meshtls.policy.select import matches as chosen

PROBES = ipaddress.ip_address("169.254.7.127")
HBONE = 15008


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.network_policies:
        if policy.spec.policy_types and "Ingress" not in policy.spec.policy_types:
            continue
        hit = [w for w in facts.workloads_in.get(policy.namespace, ())
               if facts.plane(w) == "ambient" and chosen(policy.spec.pod_selector, facts.face(w).metadata.labels)]
        if not hit:
            continue
        others = [p for p in facts.mesh.network_policies if p.namespace == policy.namespace and p.ref != policy.ref
                  and chosen(p.spec.pod_selector, facts.face(hit[0]).metadata.labels)]
        rules = [rule for p in (policy, *others) for rule in p.spec.ingress]
        lacking = []
        if not any(_lets(rule, HBONE) for rule in rules):
            lacking.append(("AM-16", f"TCP {HBONE}, so that calls within the mesh time out"))
        if not any(_lets_in(rule, PROBES) for rule in rules):
            lacking.append(("AM-09", f"{PROBES}, from where the kubelet's probes arrive"))
        if lacking:
            yield Flaw(
                subject=policy.ref,
                path=("spec", "ingress"),
                message=f"Selects ambient pods ({hit[0].label}) and does not let in {'; nor '.join(text for _, text in lacking)}.",
                because=("ambient carries mTLS on port 15008 whatever the application's port",),
                catalogue=tuple(id_ for id_, _ in lacking),
                fix="spec:\n  ingress:\n  - ports:\n    - port: 15008\n      protocol: TCP\n  - from:\n    - ipBlock:\n        cidr: 169.254.7.127/32",
            )


def _lets(rule: o.NetworkPolicyIngress, port: int) -> bool:
    return not rule.ports or any(
        p.port is None or p.port == port or (isinstance(p.port, int) and p.end_port and p.port <= port <= p.end_port) for p in rule.ports)


def _lets_in(rule: o.NetworkPolicyIngress, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not rule.from_:
        return True
    for peer in rule.from_:
        if peer.ip_block and not peer.pod_selector and not peer.namespace_selector:
            try:
                if address in ipaddress.ip_network(peer.ip_block.cidr, strict=False):
                    return True
            except ValueError:
                continue
    return False


RULE = Rule(code="MT125", title="A NetworkPolicy cuts off ambient pods", severity=Severity.ERROR, confidence=Confidence.INFERRED,
            catalogue=("AM-09", "AM-16", "PP-05"), about=("NetworkPolicy",), needs=("Pod", "Namespace"), find=find)

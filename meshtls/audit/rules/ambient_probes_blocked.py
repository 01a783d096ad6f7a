"""Ambient: what keeps the kubelet's probes (from 169.254.7.127) or mTLS itself (TCP 15008) from reaching captured pods.

A NetworkPolicy that does not let them in; and network plugins known to lose the address that marks a probe, so that ztunnel takes
it for plaintext: fine under PERMISSIVE, a crash loop under STRICT.
"""

import ipaddress
import re
from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, port_of
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload
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
        probed = sorted({port for w in hit for port in _probed(facts, w)})
        if any(not any(_lets(rule, port) and _lets_in(rule, PROBES) for rule in rules) for port in probed):
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
    asked = next((w for w in facts.ambient if _probed(facts, w) and facts.refuses(w)), None)
    if asked is not None:
        yield from _plugins(facts, asked)


def _plugins(facts: Facts, probed: Workload) -> Iterator[Flaw]:
    """Network plugins that are known to lose the probes' address; `probed` is a workload that would be refused its own."""
    for daemons in facts.mesh.daemon_sets:
        said, severity = _loses(daemons)
        if said:
            yield Flaw(
                subject=daemons.ref,
                severity=severity,
                message=f"{said}: the kubelet's probes of ambient pods ({probed.label}) may arrive without the address that marks them, "
                        "and STRICT then refuses them.",
                because=("istio-cni gives probes the source 169.254.7.127; a plugin that masquerades undoes it",),
                catalogue=("AM-09",),
                fix="Make one workload STRICT first (a policy with a selector) and watch whether its probes go on passing.",
                affects=tuple(sorted({w.namespace for w in facts.ambient})),
            )


def _loses(daemons: o.DaemonSet) -> tuple[str, Severity]:
    """What a DaemonSet tells of the plugin, and how bad that is; "" for nothing."""
    if daemons.name in ("ovnkube-node", "ovs-node"):
        return "OVN-Kubernetes in shared gateway mode", Severity.WARNING
    for container in daemons.template.spec.containers:
        env = {e.name: e.value for e in container.env}
        if env.get("FELIX_BPFENABLED", "").lower() == "true":
            version = re.search(r":v?(\d+)\.(\d+)", container.image)
            if version is None or (int(version[1][:6]), int(version[2][:6])) < (3, 29):
                return "Calico's eBPF data plane before 3.29", Severity.ERROR if version else Severity.WARNING
    return ("Cilium, if bpf.masquerade is on", Severity.INFO) if daemons.name == "cilium" else ("", Severity.INFO)


def _probed(facts: Facts, w: Workload) -> list[int]:
    """The ports that the kubelet probes over the network."""
    found = []
    for container in application(facts.face(w)):
        for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
            what = probe and (probe.http_get or probe.tcp_socket or probe.grpc)
            if what and (port := port_of(what.port, container)):
                found.append(port)
    return found


def _lets(rule: o.NetworkPolicyIngress, port: int) -> bool:
    """Does a rule open a port? One that it names by word might be it."""
    return not rule.ports or any(
        p.protocol in ("TCP", "") and (p.port is None or isinstance(p.port, str) or p.port == port or p.port <= port <= p.end_port) for p in rule.ports)


def _lets_in(rule: o.NetworkPolicyIngress, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not rule.from_:
        return True
    for peer in rule.from_:
        if peer.ip_block and not peer.pod_selector and not peer.namespace_selector:
            if _within(address, peer.ip_block.cidr) and not any(_within(address, cidr) for cidr in peer.ip_block.except_):
                return True
    return False


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, cidr: str) -> bool:
    try:
        return address in ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False


RULE = Rule(code="MT125", title="Ambient pods are cut off from probes or from mTLS", severity=Severity.ERROR,
            catalogue=("AM-09", "AM-16"), about=("NetworkPolicy", "DaemonSet"), needs=("Pod", "Namespace"),
            reads=("PeerAuthentication",), find=find)

"""What the kernel is told: interception per pod, Services and NetworkPolicies for the node. Pure: objects in, nftables chains out.

Interception is Istio's own rule set (tools/istio-nftables/pkg/capture), flattened; the proxy's sockets are known by mark, uid or gid 1337.
Services are kube-proxy's job: a call to a cluster IP goes to a random ready endpoint, to none it is refused. NetworkPolicies act where
packets are forwarded between pods: what a policy does not allow is dropped, so that a client runs into its own timeout.
"""
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from meshtls.lab.istio.inject import selected
from meshtls.lab.istio.interception import Interception
from meshtls.lab.node import nft
from meshtls.lab.node.network import API_IP
from meshtls.lab.node.nft import ACCEPT, DROP, RETURN, TCP, Chain, Expr, Rule

Obj = dict[str, Any]
PROTOCOLS = {"TCP": nft.TCP, "UDP": nft.UDP}
HBONE = 15008
_EVERYTHING = ("*", "0.0.0.0/0")


def networks(ranges: Iterable[str]) -> Iterator[str]:
    """IPv4 ranges, written in full."""
    for text in ranges:
        try:
            yield str(ipaddress.IPv4Network(text, strict=False))
        except ValueError:
            continue  # IPv6: the lab has none


def intercept(wish: Interception) -> list[Chain]:
    """The pod's table; no chains where nothing is redirected."""
    if wish.mode == "NONE":
        return []
    tcp = nft.meta("l4proto", TCP)
    owners = [nft.meta("mark", wish.mark), nft.meta("skuid", wish.uid), nft.meta("skgid", wish.gid)]
    inbound: list[Rule] = [[nft.dport(TCP, HBONE), RETURN]]
    if wish.include_inbound is None:
        inbound += [[nft.dport(TCP, port), RETURN] for port in wish.exclude_inbound]
        inbound.append([tcp, nft.redirect(wish.inbound_port)])
    else:
        inbound += [[nft.dport(TCP, port), nft.redirect(wish.inbound_port)] for port in wish.include_inbound]
    local = nft.meta("oifname", "lo")
    out: list[Rule] = [[nft.dport(protocol, port), RETURN] for port in wish.exclude_outbound for protocol in PROTOCOLS.values()]
    out.append([local, nft.saddr("127.0.0.6"), RETURN])
    out += [[local, nft.daddr("127.0.0.1", negate=True), nft.dport(TCP, HBONE, negate=True), owner, nft.redirect(wish.inbound_port)]
            for owner in owners]
    not_owner = (nft.meta("mark", wish.mark, negate=True) + nft.meta("skuid", wish.uid, negate=True)
                 + nft.meta("skgid", wish.gid, negate=True))
    out.append([local, not_owner, RETURN])
    out += [[owner, RETURN] for owner in owners]
    out.append([nft.daddr("127.0.0.1"), RETURN])
    out += [[nft.daddr(network), RETURN] for network in networks(wish.exclude_ranges)]
    out += [[nft.dport(TCP, port), nft.redirect(wish.outbound_port)] for port in wish.include_outbound]
    if any(text in _EVERYTHING for text in wish.include_ranges):
        out.append([tcp, nft.redirect(wish.outbound_port)])
    else:
        out += [[nft.daddr(network), tcp, nft.redirect(wish.outbound_port)] for network in networks(wish.include_ranges)]
    return [Chain("prerouting", inbound, "prerouting", "nat", -100), Chain("output", out, "output", "nat", -100)]


def _backends(service: Obj, port: Obj, slices: Sequence[Obj]) -> list[tuple[str, int]]:
    """Ready addresses behind a Service port; where none is ready, those that still serve while they end."""
    ready, ending = [], []
    for piece in slices:
        number = next((p.get("port") for p in piece.get("ports") or []
                       if (p.get("name") or "") == (port.get("name") or "") and p.get("protocol", "TCP") == port.get("protocol", "TCP")), None)
        if not number:
            continue
        for endpoint in piece.get("endpoints") or []:
            said = endpoint.get("conditions") or {}
            place = ready if said.get("ready", True) is not False else ending if said.get("serving") and said.get("terminating") else None
            if place is not None:
                place += [(ip, number) for ip in endpoint.get("addresses") or []]
    return ready or ending


def services(objects: Sequence[Obj], slices: Sequence[Obj]) -> tuple[list[Chain], list[Chain]]:
    """Tables for translation and for refusal. Headless Services and those without a cluster IP have no part in it."""
    by_service: dict[tuple[str, str], list[Obj]] = {}
    for piece in slices:
        metadata = piece["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service.setdefault((metadata["namespace"], name), []).append(piece)
    translate: list[Rule] = []
    refuse: list[Rule] = []
    hairpins: set[str] = set()
    for service in objects:
        spec, metadata = service.get("spec") or {}, service["metadata"]
        ip = spec.get("clusterIP")
        if ip in (None, "", "None") or spec.get("type") == "ExternalName":
            continue
        for port in spec.get("ports") or []:
            protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
            if protocol is None:
                continue
            match: list[Expr] = [nft.daddr(ip), nft.dport(protocol, port["port"])]
            backends = _backends(service, port, by_service.get((metadata["namespace"], metadata["name"]), []))
            for number, (address, target) in enumerate(backends):
                left = len(backends) - number
                translate.append([*match, *([nft.one_in(left)] if left > 1 else []), nft.dnat(address, target)])
                hairpins.add(address)
            if not backends and ip != API_IP:
                refuse.append([*match, nft.reject()])
    to_itself: list[Rule] = [[nft.saddr(ip), nft.daddr(ip), nft.masquerade()] for ip in sorted(hairpins)]
    return ([Chain("services", translate), Chain("prerouting", [[nft.jump("services")]], "prerouting", "nat", -100),
             Chain("output", [[nft.jump("services")]], "output", "nat", -100), Chain("postrouting", to_itself, "postrouting", "nat", 100)],
            [Chain("refused", refuse), Chain("forward", [[nft.jump("refused")]], "forward"),
             Chain("output", [[nft.jump("refused")]], "output")])


def find(objects: Sequence[Obj], slices: Sequence[Obj], ip: str, port: int, protocol: str) -> list[tuple[str, int]] | None:
    """Where a call to a Service's address may go: [] where nothing is ready, None where there is no such Service or port."""
    for service in objects:
        metadata, spec = service["metadata"], service.get("spec") or {}
        if spec.get("clusterIP") != ip:
            continue
        for each in spec.get("ports") or []:
            if (each["port"], each.get("protocol", "TCP")) == (port, protocol):
                return _backends(service, each, [s for s in slices if s["metadata"]["namespace"] == metadata["namespace"] and (
                    s["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == metadata["name"]])
    return None


class Policies:
    """NetworkPolicies over pods and namespaces, as chains for forwarded packets."""

    def __init__(self, policies: Sequence[Obj], pods: Sequence[Obj], namespaces: Sequence[Obj]) -> None:
        self._policies = policies
        self._pods = [pod for pod in pods if (pod.get("status") or {}).get("podIP") and not (pod.get("spec") or {}).get("hostNetwork")]
        self._labels = {obj["metadata"]["name"]: {"kubernetes.io/metadata.name": obj["metadata"]["name"],
                                                  **(obj["metadata"].get("labels") or {})} for obj in namespaces}

    def chains(self) -> list[Chain]:
        ways: dict[str, list[Rule]] = {"egress": [], "ingress": []}
        out: list[Chain] = []
        for pod in self._pods:
            ip = pod["status"]["podIP"]
            for way, match in (("egress", nft.saddr), ("ingress", nft.daddr)):
                mine = [policy for policy in self._policies if self._isolates(policy, pod, way)]
                if not mine:
                    continue
                name = f"{way}-{ip}"
                allowed = [rule for policy in mine for rule in self._allowed(policy, pod, way)]
                out.append(Chain(name, [*allowed, [DROP]]))
                ways[way].append([match(ip), nft.jump(name)])
        if not out:
            return []
        out += [Chain(way, rules) for way, rules in ways.items()]
        out.append(Chain("forward", [[nft.established(), ACCEPT], [nft.jump("egress")], [nft.jump("ingress")]], "forward", "filter", 10))
        return out

    def _isolates(self, policy: Obj, pod: Obj, way: str) -> bool:
        spec = policy.get("spec") or {}
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        return (policy["metadata"]["namespace"] == pod["metadata"]["namespace"] and way.capitalize() in types
                and selected(spec.get("podSelector"), pod["metadata"].get("labels") or {}))

    def _allowed(self, policy: Obj, pod: Obj, way: str) -> Iterator[Rule]:
        address = nft.saddr if way == "ingress" else nft.daddr
        for rule in (policy.get("spec") or {}).get(way) or []:
            ports = list(self._ports(rule.get("ports") or [], pod if way == "ingress" else None))
            if rule.get("ports") and not ports:
                continue
            peers: list[list[Expr]] = [[]] if not rule.get("from" if way == "ingress" else "to") else []
            for peer in rule.get("from" if way == "ingress" else "to") or []:
                if "ipBlock" in peer:
                    block = peer["ipBlock"]
                    peers.append([address(block["cidr"]), *(address(cut, negate=True) for cut in block.get("except") or [])])
                else:
                    peers += [[address(ip)] for ip in self._addresses(peer, policy["metadata"]["namespace"])]
            for chosen in peers:
                for port in ports or [b""]:
                    yield [*chosen, *([port] if port else []), RETURN]

    def _addresses(self, peer: Obj, home: str) -> Iterator[str]:
        for pod in self._pods:
            namespace = pod["metadata"]["namespace"]
            if "namespaceSelector" in peer:
                if not selected(peer["namespaceSelector"], self._labels.get(namespace, {})):
                    continue
            elif namespace != home:
                continue
            if selected(peer.get("podSelector"), pod["metadata"].get("labels") or {}):
                yield pod["status"]["podIP"]

    def _ports(self, ports: Sequence[Obj], pod: Obj | None) -> Iterator[Expr]:
        for port in ports:
            protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
            number = port.get("port")
            if protocol is None:
                continue
            if number is None:
                yield nft.meta("l4proto", protocol)
            elif isinstance(number, int):
                yield nft.dport(protocol, number, port.get("endPort") or 0)
            else:  # a name: of the pod's own ports, or (egress) of any pod's
                of = [pod] if pod else self._pods
                yield from {nft.dport(protocol, each["containerPort"]) for one in of for container in one["spec"]["containers"]
                            for each in container.get("ports") or [] if each.get("name") == number}

"""What the kernel is told: interception per pod, Services and NetworkPolicies for the node. Pure: objects in, nftables chains out.

Interception is Istio's own rule set (tools/istio-nftables/pkg/capture), flattened; the proxy's sockets are known by mark, uid or gid 1337.
Services are kube-proxy's job: a call to a cluster IP goes to a random ready endpoint, to none it is refused. NetworkPolicies act where
packets are forwarded between pods: what a policy does not allow is dropped, so that a client runs into its own timeout.
"""
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from meshtls.lab.api.select import selected
from meshtls.lab.istio.interception import Interception
from meshtls.lab.node.network import API_IP
from meshtls.lab.node.nft import PROTOCOLS, Chain

Obj = dict[str, Any]
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
    known = {"mark": wish.mark, "skuid": wish.uid, "skgid": wish.gid}
    owners = [f"meta {key} {value}" for key, value in known.items()]
    not_owner = " ".join(f"meta {key} != {value}" for key, value in known.items())
    to_inbound, to_outbound = f"redirect to :{wish.inbound_port}", f"redirect to :{wish.outbound_port}"
    inbound = [f"tcp dport {HBONE} return"]
    if wish.include_inbound is None:
        inbound += [*(f"tcp dport {port} return" for port in wish.exclude_inbound), f"meta l4proto tcp {to_inbound}"]
    else:
        inbound += [f"tcp dport {port} {to_inbound}" for port in wish.include_inbound]
    everything = any(text in _EVERYTHING for text in wish.include_ranges)
    out = [*(f"{protocol} dport {port} return" for port in wish.exclude_outbound for protocol in PROTOCOLS),
           "meta oifname lo ip saddr 127.0.0.6 return",
           *(f"meta oifname lo ip daddr != 127.0.0.1 tcp dport != {HBONE} {owner} {to_inbound}" for owner in owners),
           f"meta oifname lo {not_owner} return",
           *(f"{owner} return" for owner in owners),
           "ip daddr 127.0.0.1 return",
           *(f"ip daddr {network} return" for network in networks(wish.exclude_ranges)),
           *(f"tcp dport {port} {to_outbound}" for port in wish.include_outbound),
           *([f"meta l4proto tcp {to_outbound}"] if everything else
             [f"ip daddr {network} meta l4proto tcp {to_outbound}" for network in networks(wish.include_ranges)])]
    return [Chain("prerouting", inbound, "prerouting", "nat", -100), Chain("output", out, "output", "nat", -100)]


def _ports(objects: Sequence[Obj], slices: Sequence[Obj]) -> Iterator[tuple[str, Obj, list[Obj]]]:
    """(cluster IP, port, its Service's slices) of each port of each Service that has a cluster IP."""
    by_service: dict[tuple[str, str], list[Obj]] = {}
    for piece in slices:
        metadata = piece["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service.setdefault((metadata["namespace"], name), []).append(piece)
    for service in objects:
        spec, metadata = service.get("spec") or {}, service["metadata"]
        ip = spec.get("clusterIP")
        if ip not in (None, "", "None") and spec.get("type") != "ExternalName":
            for port in spec.get("ports") or []:
                yield ip, port, by_service.get((metadata["namespace"], metadata["name"]), [])


def _protocol(port: Obj) -> str:
    return str(port.get("protocol", "TCP"))


def _backends(port: Obj, slices: Sequence[Obj]) -> list[tuple[str, int]]:
    """Ready addresses behind a Service port; where none is ready, those that still serve while they end."""
    ready: list[tuple[str, int]] = []
    ending: list[tuple[str, int]] = []
    for piece in slices:
        number = next((p.get("port") for p in piece.get("ports") or []
                       if (p.get("name") or "") == (port.get("name") or "") and _protocol(p) == _protocol(port)), None)
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
    translate: list[str] = []
    refuse: list[str] = []
    hairpins: set[str] = set()
    for ip, port, pieces in _ports(objects, slices):
        protocol = _protocol(port).lower()
        if protocol not in PROTOCOLS:
            continue
        match = f"ip daddr {ip} {protocol} dport {port['port']}"
        backends = _backends(port, pieces)
        for left, (address, target) in zip(range(len(backends), 0, -1), backends, strict=True):
            one_in = f"numgen random mod {left} 0 " if left > 1 else ""
            translate.append(f"{match} {one_in}dnat to {address}:{target}")
            hairpins.add(address)
        if not backends and ip != API_IP:
            refuse.append(f"{match} reject")
    to_itself = [f"ip saddr {ip} ip daddr {ip} masquerade" for ip in sorted(hairpins)]
    return ([Chain("services", translate), Chain("prerouting", ["jump services"], "prerouting", "nat", -100),
             Chain("output", ["jump services"], "output", "nat", -100), Chain("postrouting", to_itself, "postrouting", "nat", 100)],
            [Chain("refused", refuse), Chain("forward", ["jump refused"], "forward"), Chain("output", ["jump refused"], "output")])


def find(objects: Sequence[Obj], slices: Sequence[Obj], ip: str, port: int, protocol: str) -> list[tuple[str, int]] | None:
    """Where a call to a Service's address may go: [] where nothing is ready, None where there is no such Service or port."""
    found = (_backends(each, pieces) for at, each, pieces in _ports(objects, slices) if (at, each["port"], _protocol(each)) == (ip, port, protocol))
    return next(found, None)


class Policies:
    """NetworkPolicies over pods and namespaces, as chains for forwarded packets."""

    def __init__(self, policies: Sequence[Obj], pods: Sequence[Obj], namespaces: Sequence[Obj]) -> None:
        self._policies = policies
        self._pods = [pod for pod in pods if (pod.get("status") or {}).get("podIP") and not (pod.get("spec") or {}).get("hostNetwork")]
        self._labels = {obj["metadata"]["name"]: {"kubernetes.io/metadata.name": obj["metadata"]["name"],
                                                  **(obj["metadata"].get("labels") or {})} for obj in namespaces}

    def chains(self) -> list[Chain]:
        out: list[Chain] = []
        ways: dict[str, list[str]] = {"egress": [], "ingress": []}
        for pod in self._pods:
            ip = pod["status"]["podIP"]
            for way, side in (("egress", "saddr"), ("ingress", "daddr")):
                mine = [policy for policy in self._policies if self._isolates(policy, pod, way)]
                if mine:
                    allowed = [rule for policy in mine for rule in self._allowed(policy, pod, way)]
                    out.append(Chain(f"{way}-{ip}", [*allowed, "drop"]))
                    ways[way].append(f"ip {side} {ip} jump {way}-{ip}")
        if not out:
            return []
        out += [Chain(way, rules) for way, rules in ways.items()]
        return [*out, Chain("forward", ["ct state established,related accept", "jump egress", "jump ingress"], "forward", "filter", 10)]

    def _isolates(self, policy: Obj, pod: Obj, way: str) -> bool:
        spec = policy.get("spec") or {}
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        return (policy["metadata"]["namespace"] == pod["metadata"]["namespace"] and way.capitalize() in types
                and selected(spec.get("podSelector") or {}, pod["metadata"].get("labels") or {}))

    def _allowed(self, policy: Obj, pod: Obj, way: str) -> Iterator[str]:
        key, side = ("from", "saddr") if way == "ingress" else ("to", "daddr")
        for rule in (policy.get("spec") or {}).get(way) or []:
            ports = list(self._allowed_ports(rule.get("ports") or [], pod if way == "ingress" else None))
            peers = [text for peer in rule.get(key) or [] for text in self._peers(peer, side, policy["metadata"]["namespace"])]
            for chosen in peers if rule.get(key) else [""]:
                for port in ports if rule.get("ports") else [""]:
                    yield f"{chosen} {port} return"

    def _peers(self, peer: Obj, side: str, home: str) -> Iterator[str]:
        if "ipBlock" in peer:
            yield " ".join([f"ip {side} {peer['ipBlock']['cidr']}", *(f"ip {side} != {cut}" for cut in peer["ipBlock"].get("except") or [])])
            return
        for pod in self._pods:
            namespace = pod["metadata"]["namespace"]
            near = selected(peer["namespaceSelector"] or {}, self._labels.get(namespace, {})) if "namespaceSelector" in peer else namespace == home
            if near and selected(peer.get("podSelector") or {}, pod["metadata"].get("labels") or {}):
                yield f"ip {side} {pod['status']['podIP']}"

    def _allowed_ports(self, ports: Sequence[Obj], pod: Obj | None) -> Iterator[str]:
        for port in ports:
            protocol, number = _protocol(port).lower(), port.get("port")
            if protocol not in PROTOCOLS:
                continue
            if number is None:
                yield f"meta l4proto {protocol}"
            elif isinstance(number, int):
                yield f"{protocol} dport {number}" + (f"-{port['endPort']}" if port.get("endPort") else "")
            else:  # a name: of the pod's own ports, or (egress) of any pod's
                named = (each for one in ([pod] if pod else self._pods) for container in one["spec"]["containers"]
                         for each in container.get("ports") or [] if each.get("name") == number)
                yield from dict.fromkeys(f"{protocol} dport {each['containerPort']}" for each in named)

"""Service addresses: a cluster IP of 10.96.0.0/16 and node ports of 30000-32767, by the Service's name, so that a lab
made again has the same.

`assign` completes one Service given what is taken; an API may call it while it creates the Service, and the
controller does it for those that got no address on the way in. 10.96.0.0/24 is left to fixed addresses (the API's
10.96.0.1, the DNS server's 10.96.0.10).
"""

import ipaddress
import zlib
from collections.abc import Collection, Iterator

from meshtls.lab.api.store import Event
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, key_of
from meshtls.lab.controllers.queue import Key

NETWORK = ipaddress.ip_network("10.96.0.0/16")
FIRST, LAST = int(NETWORK.network_address) + 256, int(NETWORK.broadcast_address) - 1
NODE_PORTS = range(30000, 32768)


def assign(service: Obj, addresses: Collection[str], node_ports: Collection[int]) -> None:
    """Give `service`, in place, the cluster IP and node ports that it lacks. `addresses`, `node_ports`: those of all
    other Services."""
    spec = service["spec"]
    kind, name = spec.get("type", "ClusterIP"), "/".join(key_of(service))
    if kind == "ExternalName":
        return
    if not spec.get("clusterIP"):
        spec["clusterIP"] = next(
            str(ipaddress.ip_address(one))
            for one in _from_hash(name, FIRST, LAST)
            if str(ipaddress.ip_address(one)) not in addresses
        )
    spec["clusterIPs"] = spec.get("clusterIPs") or [spec["clusterIP"]]
    spec["ipFamilies"] = spec.get("ipFamilies") or ["IPv4"]
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)):
        taken = {*node_ports, *(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))}
        for port in spec.get("ports") or ():
            if not port.get("nodePort"):
                port["nodePort"] = next(
                    one
                    for one in _from_hash(f"{name}:{port['port']}", NODE_PORTS[0], NODE_PORTS[-1])
                    if one not in taken
                )
                taken.add(port["nodePort"])


def taken(services: list[Obj], but: Key) -> tuple[set[str], set[int]]:
    """Addresses and node ports of all Services except one."""
    others = [one["spec"] for one in services if key_of(one) != but]
    return (
        {spec["clusterIP"] for spec in others if spec.get("clusterIP")},
        {port["nodePort"] for spec in others for port in spec.get("ports") or () if port.get("nodePort")},
    )


def _from_hash(name: str, first: int, last: int) -> Iterator[int]:
    """Every number of a range once, from a place that the name decides."""
    start, size = zlib.crc32(name.encode()), last - first + 1
    return (first + (start + step) % size for step in range(size))


class Addresses:
    name = "service-addresses"
    watches = frozenset({"services"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        return [] if event.type == "DELETED" else [key_of(event.object)]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        in_use = taken(self._hands.store.list("services"), (namespace, name))
        self._hands.store.mutate("services", namespace, name, lambda service: assign(service, *in_use))
        return None

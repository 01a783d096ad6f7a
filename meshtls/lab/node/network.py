"""Pods' networks: one namespace and one veth pair each, routed (not bridged) through the node.

Every packet between pods crosses the node's forward chain, so Services, NetworkPolicies and the sniffer have one place. A pod has
PODS/32 and its default route by the node's address, as kindnet and Calico do it. Namespaces are anonymous: a descriptor keeps each alive.
`setns` is per thread: one worker thread does all of it, and sockets opened there stay in the pod's network for any thread to use.
"""
import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from meshtls.lab.api.store import Store
from meshtls.lab.istio.discovery import Configuration
from meshtls.lab.node import linux, netlink, nft
from meshtls.lab.node.dns import Dns
from meshtls.lab.node.runtime import Spec

NODE_IP = "10.77.0.1"
SERVICE_CIDR = "10.96.0.0/16"
DNS_IP = "10.96.0.10"
API_IP = "10.96.0.1"

_LOOPBACK, _ETH0, _FIRST_INDEX, _LAST = 1, 2, 100, 250 * 250
_T = TypeVar("_T")


class PodNet:
    """A pod's network: its address and the descriptor of its namespace. hostNetwork pods share the node's."""

    __slots__ = ("ip", "netns", "index", "host", "nft")

    def __init__(self, ip: str, netns: int, index: int, host: bool = False) -> None:
        self.ip, self.netns, self.index, self.host = ip, netns, index, host
        self.nft: socket.socket | None = None  # kept while the pod lives: closing one waits for the kernel

    @property
    def bootstrap(self) -> dict[str, Any]:
        """What its Envoy's bootstrap needs besides Istio's own."""
        return {}

    def at(self, port: int) -> str:
        """Where an application of the pod that listens on all addresses is reached past the proxy."""
        return self.ip

    def loop(self, port: int) -> str:
        """The same from inside the pod, by its 127.0.0.1."""
        return "127.0.0.1"

    def contain(self, spec: Spec) -> Spec:
        """A container that is to run in this network."""
        return spec


def _sysctl(path: str, value: str) -> None:
    try:
        with open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        pass  # a read-only /proc/sys: each of these is a nicety, forwarding is checked by the first call


def _tcp() -> socket.socket:
    """A non-blocking socket that says that it is TCP, since asyncio switches Nagle's delay off only then."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setblocking(False)
    return sock


class Network:
    """The node's network and the pods' on it. Made inside the lab's own world (`world.enter`)."""

    def __init__(self, nodes: int = 1) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
        self._next = 0
        self.node_ips = [f"10.77.0.{number}" for number in range(1, nodes + 1)]
        for path, value in (("ipv4/ip_forward", "1"), ("ipv4/ip_unprivileged_port_start", "0")):
            _sysctl(path, value)
        steps = [netlink.address(_LOOPBACK, ip) for ip in (*self.node_ips, DNS_IP, API_IP)]
        self._links, self._nft = netlink.open_socket(netlink.ROUTE), netlink.open_socket(netlink.NETFILTER)
        # the route lets a call to a Service leave the socket layer; what is not translated there comes back as an error
        netlink.talk(self._links, [*steps, netlink.route(SERVICE_CIDR.split("/")[0], 16, _LOOPBACK)])

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do it in the worker thread, in the node's namespace."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def inside(self, pod: PodNet, work: Callable[[], _T]) -> _T:
        """Do it in the worker thread, in the pod's namespace."""
        return await self.run(lambda: self._inside(pod.netns, work))

    def _inside(self, netns: int, work: Callable[[], _T]) -> _T:
        linux.setns(netns, linux.CLONE_NEWNET)
        try:
            return work()
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)

    def host(self, node: int = 0) -> PodNet:
        """What a hostNetwork pod gets: the node itself."""
        return PodNet(self.node_ips[node], self._home, 0, host=True)

    async def add(self, pod: dict[str, Any]) -> PodNet:
        """A new pod's network, ready for connections. Raises OSError."""
        self._next += 1
        if self._next > _LAST:
            raise OSError(errno.ENOSPC, "no address is left in this lab")
        number = self._next
        return await self.run(lambda: self._make(number))

    def _make(self, number: int) -> PodNet:
        ip, index = f"10.77.{1 + number // 250}.{1 + number % 250}", _FIRST_INDEX + number
        linux.unshare(linux.CLONE_NEWNET)
        try:
            netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _sysctl("ipv4/ip_unprivileged_port_start", "0")
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)
        pair = netlink.veth(f"pod{number}", index, "eth0", _ETH0, netns)
        netlink.talk(self._links, [pair, netlink.address(index, NODE_IP), netlink.link_up(index),
                                   netlink.route(ip, 32, index, source=NODE_IP)])

        def furnish() -> None:
            with netlink.open_socket(netlink.ROUTE) as links:
                netlink.talk(links, [netlink.link_up(_LOOPBACK), netlink.address(_ETH0, ip), netlink.link_up(_ETH0),
                                     netlink.route(NODE_IP, 32, _ETH0), netlink.route("0.0.0.0", 0, _ETH0, gateway=NODE_IP)])
        self._inside(netns, furnish)
        return PodNet(ip, netns, index)

    async def remove(self, pod: PodNet) -> None:
        """The pair goes at once; the namespace when its last process and socket are gone."""
        if pod.host:
            return

        def drop() -> None:
            try:
                netlink.talk(self._links, [netlink.link_gone(pod.index)])
            finally:
                os.close(pod.netns)
                if pod.nft:
                    pod.nft.close()
        await self.run(drop)

    async def rules(self, table: str, chains: Sequence[nft.Chain], pod: PodNet | None = None) -> None:
        """Replace a table in the node's namespace or in a pod's."""
        if pod is not None and pod.nft is None:
            pod.nft = await self.inside(pod, lambda: netlink.open_socket(netlink.NETFILTER))
        sock = (pod.nft if pod else None) or self._nft
        await self.run(lambda: nft.replace(sock, table, chains))

    async def listen(self, pod: PodNet, ip: str, port: int) -> socket.socket:
        """A listening TCP socket in the pod's network."""
        def listening() -> socket.socket:
            sock = _tcp()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((ip, port))
            sock.listen(128)
            return sock
        return await self.inside(pod, listening)

    async def client(self, pod: PodNet) -> socket.socket:
        """An unconnected TCP socket in the pod's network."""
        return await self.inside(pod, _tcp)

    def probes_from(self, node: int) -> str:
        """The address that a node's probes are bound to; "" for the kernel's choice."""
        return ""

    def fit(self, pod: dict[str, Any], found: Configuration) -> Configuration:
        """A proxy's configuration, for its pod's network."""
        return found

    async def serve(self, store: Store) -> None:
        """Answer for names, on the node's own address."""
        self._dns = Dns(store)
        await self._dns.serve(DNS_IP)

    def api(self, listener: socket.socket) -> list[socket.socket]:
        """Where the API listens inside, besides its `listener` on the host."""
        inside = _tcp()
        inside.bind((API_IP, 443))
        return [inside]

    async def dial(self, ip: str, port: int) -> socket.socket:
        """A connection from the node to a Service. Raises OSError."""
        sock = _tcp()
        await asyncio.get_running_loop().sock_connect(sock, (ip, port))
        return sock

"""Pods on this machine's own loopback, where network namespaces are refused: the `Network` of a loopback lab, with less fidelity.

A pod takes three neighbouring addresses of the lab's block (see ../addresses.py): its own, its applications' behind the proxy, its 127.0.0.1
(see shim.py for what a program does with them, and istio/loopback.py for its proxy). The socket that keeps the block from other labs answers
what a kernel and a DNS server would: where a Service's address leads now, and names.
"""
import asyncio
import collections
import errno
import json
import os
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from meshtls.lab.addresses import EACH, Claim
from meshtls.lab.api.store import Store
from meshtls.lab.istio.discovery import Configuration
from meshtls.lab.istio.interception import Interception, interception
from meshtls.lab.istio.loopback import Place, configuration
from meshtls.lab.node import dns, rules, shim
from meshtls.lab.node.network import API_IP, PodNet
from meshtls.lab.node.nft import Chain
from meshtls.lab.node.runtime import Spec, host_python

Obj = dict[str, Any]


class Question(msgspec.Struct, frozen=True):
    """What a shim asks: the addresses of `name`; where a Service's `ip` and `port` lead; or it tells that a program of pod `ip` `listens`."""

    name: str = ""
    search: list[str] = []
    ip: str = ""
    port: int = 0
    protocol: str = "TCP"
    listens: int = 0


def lowest_port() -> int:
    """The first port that this process may bind on such an address. (macOS lets everybody have the lower ones on all addresses, but not on one.)"""
    if os.geteuid() == 0:
        return 1
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _ranges(texts: Iterable[str]) -> list[tuple[int, int]]:
    networks = rules.networks("0.0.0.0/0" if text == "*" else text for text in texts)
    return [(shim.number(ip), -1 << (32 - int(length)) & 0xFFFFFFFF) for ip, _, length in (text.partition("/") for text in networks)]


class LoopbackNet(PodNet):
    """A pod's addresses, and what its programs and its proxy have to know of them."""

    __slots__ = ("place", "wish", "lab", "run", "intercepted")

    def __init__(self, place: Place, wish: Interception, lab: tuple[str, int], host: bool = False) -> None:
        super().__init__(place.ip, -1, 0, host)
        self.place, self.wish, self.lab, self.run = place, wish, lab, os.getcwd()
        self.intercepted = False  # until its istio-init would have run

    @property
    def bootstrap(self) -> Obj:
        return self.place.bootstrap()

    def at(self, port: int) -> str:
        return self.place.app if self.place.captured(port) else self.ip

    loop = at

    def contain(self, spec: Spec) -> Spec:
        """A container without a root of its own: what it would see is told to its shim."""
        assert spec.root is not None
        files, wish = spec.root.files, self.wish if self.intercepted else Interception("NONE")
        paths = sorted(((target, source) for source, target, _ in spec.root.mounts), key=lambda pair: -len(pair[0]))
        if "/tmp" not in dict(paths):
            paths.append(("/tmp", f"{self.run}/tmp/{self.ip}"))
            os.makedirs(paths[-1][1], exist_ok=True)
        temporary = dict(paths)["/tmp"]
        paths += [(real, source) for target, source in paths if (real := os.path.realpath(target)) != target]  # /tmp and /var may be links
        paths.insert(0, (self.run, self.run))  # what is in place already stays, even where all of it is below /tmp
        resolv = [line.split() for line in files["/etc/resolv.conf"].splitlines()]
        outbound = None if wish.mode == "NONE" or spec.uid == wish.uid or spec.gid == wish.gid else {
            "ports": wish.include_outbound, "not_ports": wish.exclude_outbound, "ranges": _ranges(wish.include_ranges),
            "not_ranges": _ranges(wish.exclude_ranges)}
        place = {"ip": self.ip, "app": self.place.app, "local": self.place.local, "block": _block(self.ip), "lab": self.lab,
                 "inbound": _inbound(wish), "outbound": outbound, "proxy_port": wish.outbound_port, "hostname": spec.hostname,
                 "hosts": {name: ip for ip, *names in map(str.split, files["/etc/hosts"].splitlines()) for name in names if ":" not in ip},
                 "search": [word for line in resolv if line[0] == "search" for word in line[1:]],
                 "paths": paths}
        cwd = next((spec.cwd.replace(target, source, 1) for target, source in paths if f"{spec.cwd}/".startswith(f"{target}/")), temporary)
        env = {"TMPDIR": temporary, **spec.env, "PATH": f"{self.run}/bin:{spec.env['PATH']}", shim.VARIABLE: json.dumps(place),
               "PYTHONPATH": ":".join(filter(None, (f"{self.run}/shim", spec.env.get("PYTHONPATH", ""))))}
        return msgspec.structs.replace(spec, root=None, cwd=cwd, env=env, paths=tuple(paths))


def _dotted(number: int) -> str:
    return socket.inet_ntoa(number.to_bytes(4, "big"))


def _block(ip: str) -> str:
    return ".".join(ip.split(".")[:2]) + "."


def _inbound(wish: Interception) -> Obj | None:
    return None if wish.mode == "NONE" else {"include": wish.include_inbound, "exclude": wish.exclude_inbound}


class Loopback:
    """In place of `Network`."""

    def __init__(self, nodes: int, claim: Claim) -> None:
        self._lowest = lowest_port()
        self._store: Store | None = None
        self._api: tuple[str, int] = ("", 0)
        self._opened: dict[str, frozenset[int]] = {}
        self.changed: Callable[[], None] = lambda: None
        self._line, self.lab = claim.line, claim.line.getsockname()
        claim.line.setblocking(False)
        first = shim.number(f"127.{claim.block}.0.1")
        self._free = collections.deque(_dotted(first + EACH * number) for number in range(claim.pods))  # longest free first
        self.node_ips = [self._free.popleft() for _ in range(nodes)]

    # pods

    def _place(self, ip: str, wish: Interception, pod: Obj) -> Place:
        """The addresses of the pod at `ip`. Without interception its application is at the pod's own address."""
        behind, local = (_dotted(shim.number(ip) + n) for n in (1, 2))
        ports = tuple(p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports") or [] if p.get("protocol", "TCP") == "TCP")
        inbound, lowest = _inbound(wish), self._lowest
        return Place(ip, behind if inbound else ip, local, ports, self._opened.get(ip, frozenset()), lambda port: port >= lowest and shim.captured(inbound, port))

    def host(self, node: int = 0) -> PodNet:
        """What a hostNetwork pod gets: the node's address."""
        none = Interception("NONE")
        return LoopbackNet(self._place(self.node_ips[node], none, {"spec": {"containers": []}}), none, self.lab, host=True)

    async def add(self, pod: Obj) -> PodNet:
        """A new pod's addresses. Raises OSError."""
        if not self._free:
            raise OSError(errno.ENOSPC, "no address is left in this lab")
        wish = interception(pod)
        return LoopbackNet(self._place(self._free.popleft(), wish, pod), wish, self.lab)

    async def remove(self, net: PodNet) -> None:
        """Its addresses may be used again."""
        self._opened.pop(net.ip, None)
        if not net.host:
            self._free.append(net.ip)

    async def rules(self, table: str, chains: Sequence[Chain], pod: PodNet | None = None) -> None:
        """There is no kernel to be told; a pod's containers are, from now on."""
        if isinstance(pod, LoopbackNet):
            pod.intercepted = bool(chains)

    async def listen(self, pod: PodNet, ip: str, port: int) -> socket.socket:
        """A listening TCP socket on the pod's address."""
        return socket.create_server((pod.ip, port), backlog=128)

    async def client(self, pod: PodNet) -> socket.socket:
        """An unconnected, non-blocking TCP socket that comes from the pod's address."""
        return self._from(pod.ip)

    def _from(self, ip: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)
        sock.bind((ip, 0))
        return sock

    def probes_from(self, node: int) -> str:
        """The address that a node's probes come from."""
        return self.node_ips[node]

    def fit(self, pod: Obj, found: Configuration) -> Configuration:
        """A proxy's configuration, for its pod's addresses."""
        ip = (pod.get("status") or {}).get("podIP") or ""
        return configuration(self._place(ip, interception(pod), pod), found)

    # what a kernel and a DNS server would answer

    async def serve(self, store: Store) -> None:
        """Answer the shims; and put them, and the Python they run in, where containers find them."""
        self._store = store
        os.makedirs("shim", exist_ok=True)
        Path("shim/sitecustomize.py").write_bytes(Path(shim.__file__).read_bytes())
        os.makedirs("bin", exist_ok=True)
        for name in ("python", "python3"):
            os.symlink(host_python()[1], f"bin/{name}")
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Line(self), sock=self._line)

    def api(self, listener: socket.socket) -> list[socket.socket]:
        """The API's address in the cluster leads to its listener."""
        self._api = listener.getsockname()
        return []

    def answer(self, question: Question) -> Obj:
        """{"addresses"} of a name; {"ip", "port"} that a Service leads to, or {"errno"}."""
        assert self._store is not None
        ip, port = question.ip, question.port
        if question.name:
            return {"addresses": dns.addresses(self._store, question.name, question.search)}
        if question.listens:
            opened = self._opened.get(ip, frozenset())
            if question.listens not in opened and 0 < question.listens < 65536:
                self._opened[ip] = opened | {question.listens}
                self.changed()
            return {}
        if (ip, port) == (API_IP, 443):
            return {"ip": self._api[0], "port": self._api[1]}
        backends = rules.find(self._store.list("services"), self._store.list(dns.SLICES), ip, port, question.protocol)
        if not backends:
            return {"errno": errno.EHOSTUNREACH if backends is None else errno.ECONNREFUSED}
        chosen = random.choice(backends)
        return {"ip": chosen[0], "port": chosen[1]}

    async def dial(self, ip: str, port: int) -> socket.socket:
        """A connection from the first node to a Service. Raises OSError."""
        said = self.answer(Question(ip=ip, port=port))
        if "errno" in said:
            raise OSError(said["errno"], os.strerror(said["errno"]))
        sock = self._from(self.node_ips[0])
        try:
            await asyncio.get_running_loop().sock_connect(sock, (said["ip"], said["port"]))
        except OSError:
            sock.close()
            raise
        return sock


class _Line(asyncio.DatagramProtocol):
    def __init__(self, network: Loopback) -> None:
        self._network = network

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            question = msgspec.json.decode(data, type=Question)
        except msgspec.MsgspecError:
            return  # not one of ours
        self._transport.sendto(msgspec.json.encode(self._network.answer(question)), addr)

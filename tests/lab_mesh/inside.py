"""A witness inside the lab's world: makes calls from pods' networks, and watches the wire between them.

    python inside.py LAB_PID            reads one JSON request a line, answers with one JSON line

    {"pods": {NAME: [TOKEN, IP]}}       learn the pods: each has a process whose last argument is TOKEN
    {"from": NAME, "to": [IP, PORT], "protocol": "http"|"tcp", "host": HOST, "path": PATH}
        -> {"answered": NAME or "", "how": what came back, "flows": [[POD, PORT, "mtls"|"tls"|"plaintext", reply]]}

The connection is made in the pod's network namespace by a process that is not its proxy, so the kernel's rules treat it as the
application's. Flows are the client's TCP connections to pods on which bytes went out during the call, judged by their first bytes on the
wire: a TLS hello that offers Istio's ALPN, another TLS hello, or anything else. Python's standard library only.
"""

import ctypes
import json
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
ETH_P_ALL, ETH_P_IP, OUTGOING = 0x0003, 0x0800, 4
SYN, ACK = 0x02, 0x10
KEPT = 4096
TIMEOUT_S = 3.0

_libc = ctypes.CDLL(None, use_errno=True)


def enter(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, kind):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


class Wire:
    """Every packet that the node forwards, put together to TCP connections as far as their first bytes."""

    def __init__(self) -> None:
        # a socket for one protocol is not shown what leaves
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.socket.setblocking(False)
        self.flows: dict[tuple, list[bytearray]] = {}
        self.spent: set[tuple] = set()

    def drain(self) -> list[tuple]:
        """Take in what has passed; the connections on which a client sent bytes."""
        active = {}
        while True:
            try:
                packet, (_, protocol, direction, _, _) = self.socket.recvfrom(65536)
            except BlockingIOError:
                return list(active)
            if protocol != ETH_P_IP or packet[9] != socket.IPPROTO_TCP:
                continue
            head = (packet[0] & 15) * 4
            source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
            ports = struct.unpack("!HH", packet[head : head + 4])
            flags = packet[head + 13]
            payload = packet[head + (packet[head + 12] >> 4) * 4 : struct.unpack("!H", packet[2:4])[0] or len(packet)]
            forth, back = (source, ports[0], target, ports[1]), (target, ports[1], source, ports[0])
            # towards the server a packet counts as it leaves the node, towards the client as it arrives: addresses of Services
            # are translated in between, and only the pods' own are wanted
            if direction == OUTGOING and flags & SYN and not flags & ACK:
                self.flows[forth] = [bytearray(), bytearray()]
            elif direction == OUTGOING and forth in self.flows and payload:
                active[forth] = None
                self.flows[forth][0] += payload[: max(KEPT - len(self.flows[forth][0]), 0)]
            elif direction != OUTGOING and back in self.flows and payload:
                self.flows[back][1] += payload[: max(KEPT - len(self.flows[back][1]), 0)]

    def kind(self, flow: tuple) -> str:
        return kind(bytes(self.flows[flow][0]))

    def reply(self, flow: tuple) -> str:
        answer = bytes(self.flows[flow][1])
        return "nothing" if not answer else "tls" if answer[:1] in (b"\x15", b"\x16") else "plaintext"


def kind(first: bytes) -> str:
    """What a client's first bytes are."""
    if first[:2] != b"\x16\x03":
        return "plaintext"
    return "mtls" if any(name.startswith(b"istio") for name in alpn(first)) else "tls"


def alpn(hello: bytes) -> list[bytes]:
    """The names that a TLS ClientHello offers (RFC 8446, 4.1.2; RFC 7301)."""
    at = 9 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    end = min(at + 2 + int.from_bytes(hello[at : at + 2], "big"), len(hello))
    at += 2
    while at + 4 <= end:
        number, size = struct.unpack("!HH", hello[at : at + 4])
        if number == 16:
            names, body = [], hello[at + 6 : at + 4 + size]
            while body:
                names.append(body[1 : 1 + body[0]])
                body = body[1 + body[0] :]
            return names
        at += 4 + size
    return []


class Witness:
    def __init__(self, lab: int) -> None:
        if os.readlink("/proc/self/ns/user") != os.readlink(f"/proc/{lab}/ns/user"):
            enter(f"/proc/{lab}/ns/user", CLONE_NEWUSER)
        enter(f"/proc/{lab}/ns/net", CLONE_NEWNET)
        self.wire = Wire()
        self.networks: dict[str, str] = {}
        self.by_ip: dict[str, str] = {}

    def learn(self, pods: dict[str, list[str]]) -> dict:
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[file.read().split(b"\0")[:-1][-1:][0].decode(errors="replace")] = pid
            except (OSError, IndexError):
                continue
        self.networks = {name: f"/proc/{found[token]}/ns/net" for name, (token, _) in pods.items() if token in found}
        self.by_ip = {ip: name for name, (_, ip) in pods.items()}
        return {"missing": sorted(pods.keys() - self.networks.keys())}

    def call(self, client: str, to: list, protocol: str, host: str, path: str) -> dict:
        self.wire.drain()
        enter(self.networks[client], CLONE_NEWNET)
        answered, how = "", ""
        try:
            with socket.create_connection((to[0], to[1]), timeout=TIMEOUT_S) as connection:
                connection.sendall(request(protocol, host, path))
                answered, how = read(connection)
        except OSError as error:
            how = type(error).__name__
        flows = [flow for flow in self.wire.drain() if flow[2] in self.by_ip and self.by_ip.get(flow[0]) == client and flow not in self.wire.spent]
        if protocol == "tcp":
            # a connection that carried other bytes is used once: what it still sends is its goodbye
            self.wire.spent.update(flows)
        told = [[self.by_ip[flow[2]], flow[3], self.wire.kind(flow), self.wire.reply(flow)] for flow in flows]
        return {"answered": answered, "how": how, "flows": told}


def request(protocol: str, host: str, path: str) -> bytes:
    if protocol == "tcp":
        return b"these bytes are not HTTP\n"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def read(connection: socket.socket) -> tuple[str, str]:
    """(who answered, the first line of what came)."""
    data = b""
    while b"\nname=" not in data or not data.endswith(b";\n"):
        more = connection.recv(65536)
        if not more:
            break
        data += more
    line = data.split(b"\r\n", 1)[0].decode("latin-1")[:80]
    name = data.rpartition(b"\nname=")[2].partition(b";")[0].decode() if b"\nname=" in data else ""
    return name, line


def main() -> None:
    witness = Witness(int(sys.argv[1]))
    for line in sys.stdin:
        wish = json.loads(line)
        if "pods" in wish:
            told = witness.learn(wish["pods"])
        else:
            told = witness.call(wish["from"], wish["to"], wish["protocol"], wish["host"], wish.get("path", "/"))
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

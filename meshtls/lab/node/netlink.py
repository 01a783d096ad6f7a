"""Netlink messages, and links, addresses and routes by them (rtnetlink). Standard library only.

A request is many messages in one send; only the last asks for an acknowledgement, and the first error is raised. Interface
indexes are chosen by the caller, so nothing has to be looked up. Constants: linux/netlink.h, rtnetlink.h, if_link.h, veth.h.
"""
import os
import socket
import struct
from typing import NamedTuple

ROUTE, NETFILTER = 0, 12
REQUEST, ACK, EXCL, CREATE, APPEND = 1, 4, 0x200, 0x400, 0x800
NLMSG_ERROR, NESTED = 2, 0x8000

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFF_UP = 1


def attr(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def nest(kind: int, *attrs: bytes) -> bytes:
    return attr(kind | NESTED, b"".join(attrs))


class Message(NamedTuple):
    """One netlink message: its type, body, and flags beyond REQUEST."""

    kind: int
    body: bytes
    flags: int = 0


def open_socket(family: int) -> socket.socket:
    """A netlink socket of the calling thread's network namespace, for as long as it is open."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    sock.settimeout(10)
    sock.bind((0, 0))
    return sock


def talk(sock: socket.socket, messages: list[Message], acked: int | None = None) -> None:
    """Send all messages and wait for the acknowledgement of number `acked` (default: the last). Raises OSError."""
    last = len(messages) - 1 if acked is None else acked
    parts = []
    for number, message in enumerate(messages):
        flags = REQUEST | message.flags | (ACK if number == last else 0)
        parts.append(struct.pack("=IHHII", 16 + len(message.body), message.kind, flags, number + 1, 0) + message.body
                     + b"\0" * (-len(message.body) % 4))
    data = b"".join(parts)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(len(data) * 2, 1 << 16))
    sock.sendto(data, (0, 0))
    while True:
        answer, offset = sock.recv(1 << 17), 0
        while offset + 20 <= len(answer):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", answer, offset)
            if kind == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", answer, offset + 16)
                if code:
                    raise OSError(-code, f"netlink request {sequence} of {len(messages)}: {os.strerror(-code)}")
                if sequence == last + 1:
                    return
            offset += (length + 3) & ~3


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def link_up(index: int) -> Message:
    return Message(_NEWLINK, _link(index, _IFF_UP))


def link_gone(index: int) -> Message:
    return Message(_DELLINK, _link(index))


def veth(name: str, index: int, peer: str, peer_index: int, peer_netns: int) -> Message:
    """A pair: `name` here, `peer` in the namespace behind the descriptor."""
    other = _link(peer_index) + attr(_IFLA_IFNAME, peer.encode() + b"\0") + attr(_IFLA_NET_NS_FD, struct.pack("=I", peer_netns))
    info = nest(_IFLA_LINKINFO, attr(_IFLA_INFO_KIND, b"veth\0"), nest(_IFLA_INFO_DATA, attr(_VETH_INFO_PEER, other)))
    return Message(_NEWLINK, _link(index) + attr(_IFLA_IFNAME, name.encode() + b"\0") + info, CREATE | EXCL)


def address(index: int, ip: str, prefix: int = 32) -> Message:
    packed = socket.inet_aton(ip)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index) + attr(2, packed) + attr(1, packed)
    return Message(_NEWADDR, body, CREATE | EXCL)


def route(destination: str, prefix: int, index: int, gateway: str = "", source: str = "") -> Message:
    """`destination/prefix` through interface `index`, directly or by a gateway; `source` is the preferred own address."""
    scope = 0 if gateway else 253
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, 254, 4, scope, 1, 0)
    if prefix:
        body += attr(1, socket.inet_aton(destination))
    body += attr(4, struct.pack("=I", index))
    if gateway:
        body += attr(5, socket.inet_aton(gateway))
    if source:
        body += attr(7, socket.inet_aton(source))
    return Message(_NEWROUTE, body, CREATE | EXCL)

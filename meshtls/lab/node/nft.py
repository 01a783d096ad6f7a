"""nftables rules as netlink messages: of nft's own language, what the lab writes. Pure, except `replace`.

A rule is text, as `nft list ruleset` shows it:

    ip daddr 10.96.0.1 tcp dport 80 numgen random mod 2 0 dnat to 10.77.1.5:8080

A table is replaced as a whole in one transaction: never is half of it in force, and connections already tracked live on.
Constants: linux/netfilter/nf_tables.h.
"""
import functools
import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from meshtls.lab.node.netlink import APPEND, CREATE, Message, attr, nest, talk

PROTOCOLS = {"tcp": 6, "udp": 17}
_SUBSYS, _IPV4 = 10, 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_HOOKS = {"prerouting": 0, "forward": 2, "output": 3, "postrouting": 4}
_REG_VERDICT, _REG_A, _REG_B = 0, 1, 2
_META = {"mark": 3, "oifname": 7, "skuid": 10, "skgid": 11, "l4proto": 16}
_ADDRESSES = {"saddr": 12, "daddr": 16}  # where they are in an IPv4 header
_VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "return": -5}
_ESTABLISHED_RELATED = struct.pack("=I", 2 | 4)


class Chain(NamedTuple):
    """`hook` "" makes a chain to jump to; `kind` is "nat" or "filter"."""

    name: str
    rules: Sequence[str]
    hook: str = ""
    kind: str = "filter"
    priority: int = 0


def _be(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _port(text: str) -> bytes:
    return struct.pack(">H", int(text))


def _expr(name: str, *fields: int | bytes | None) -> bytes:
    """An expression and its attributes, in order: numbers, values, None for one that it lacks."""
    attrs = (attr(n, _be(field)) if isinstance(field, int) else nest(n, attr(1, field)) for n, field in enumerate(fields, 1) if field is not None)
    return nest(1, attr(1, _text(name)), nest(2, *attrs))


def _compare(value: bytes, unless: bool = False) -> bytes:
    return _expr("cmp", _REG_A, int(unless), value)


def _masked(mask: bytes) -> bytes:
    return _expr("bitwise", _REG_A, _REG_A, 4, mask, bytes(4))


def _meta(key: str, value: str, unless: bool = False) -> bytes:
    if key == "l4proto":
        data = bytes([PROTOCOLS[value]])
    else:
        data = value.encode().ljust(16, b"\0") if key == "oifname" else struct.pack("=I", int(value))
    return _expr("meta", _REG_A, _META[key]) + _compare(data, unless)


def _verdict(word: str, chain: str = "") -> bytes:
    body = nest(2, attr(1, _be(_VERDICTS[word])), *([attr(2, _text(chain))] if chain else []))
    return nest(1, attr(1, _text("immediate")), nest(2, attr(1, _be(_REG_VERDICT)), nest(2, body)))


@functools.lru_cache(maxsize=1 << 15)
def rule(text: str) -> bytes:
    """The expressions of a rule. Raises ValueError for what the lab's part of the language lacks."""
    out, words = b"", text.split()
    while words:
        if unless := words[2:3] == ["!="]:
            del words[2]
        match words:
            case ["meta", key, value, *words]:
                out += _meta(key, value, unless)
            case ["ip", ("saddr" | "daddr") as side, network, *words]:
                net = ipaddress.IPv4Network(network, strict=False)
                out += (_expr("payload", _REG_A, 1, _ADDRESSES[side], 4) + (_masked(net.netmask.packed) if net.prefixlen < 32 else b"")
                        + _compare(net.network_address.packed, unless))
            case ["tcp" | "udp" as protocol, "dport", ports, *words]:
                first, _, last = ports.partition("-")
                out += _meta("l4proto", protocol) + _expr("payload", _REG_A, 2, 2, 2)
                out += _expr("range", _REG_A, 0, _port(first), _port(last)) if last else _compare(_port(first), unless)
            case ["ct", "state", "established,related", *words]:
                out += _expr("ct", _REG_A, 0) + _masked(_ESTABLISHED_RELATED) + _compare(bytes(4), unless=True)
            case ["numgen", "random", "mod", count, "0", *words]:
                out += _expr("numgen", _REG_A, int(count), 1, 0) + _compare(bytes(4))
            case ["dnat", "to", target, *words]:
                ip, _, port = target.partition(":")
                out += (_expr("immediate", _REG_A, socket.inet_aton(ip)) + _expr("immediate", _REG_B, _port(port))
                        + _expr("nat", 1, _IPV4, _REG_A, None, _REG_B))
            case ["redirect", "to", port, *words]:
                out += _expr("immediate", _REG_A, _port(port.removeprefix(":"))) + _expr("redir", _REG_A)
            case ["masquerade", *words]:
                out += _expr("masq")
            case ["reject", *words]:  # ICMP port unreachable: ECONNREFUSED at the client
                out += nest(1, attr(1, _text("reject")), nest(2, attr(1, _be(0)), attr(2, b"\x03")))
            case ["jump", chain, *words]:
                out += _verdict("jump", chain)
            case ["drop" | "accept" | "return" as word, *words]:
                out += _verdict(word)
            case _:
                raise ValueError(f"no rule: {text}")
    return out


def _message(kind: int, body: bytes, flags: int = 0) -> Message:
    return Message(_SUBSYS << 8 | kind, struct.pack(">BBH", _IPV4, 0, 0) + body, flags)


def messages(table: str, chains: Sequence[Chain]) -> list[Message]:
    """The transaction that makes `table` hold exactly these chains."""
    name, edge = attr(1, _text(table)), struct.pack(">BBH", 0, 0, _SUBSYS)
    out = [Message(_BATCH_BEGIN, edge), _message(_NEWTABLE, name, CREATE), _message(_DELTABLE, name), _message(_NEWTABLE, name, CREATE)]
    for chain in chains:
        body = name + attr(3, _text(chain.name))
        if chain.hook:
            body += nest(4, attr(1, _be(_HOOKS[chain.hook])), attr(2, _be(chain.priority))) + attr(5, _be(1)) + attr(7, _text(chain.kind))
        out.append(_message(_NEWCHAIN, body, CREATE))
    for chain in chains:
        head = name + attr(2, _text(chain.name))
        out += [_message(_NEWRULE, head + nest(4, rule(text)), CREATE | APPEND) for text in chain.rules]
    return [*out, Message(_BATCH_END, edge)]


def replace(sock: socket.socket, table: str, chains: Sequence[Chain]) -> None:
    """Put the table in force in the network namespace of a netlink socket. Raises OSError, and then nothing has changed."""
    batch = messages(table, chains)
    talk(sock, batch, acked=len(batch) - 2)

"""nftables rules as netlink messages: just the matches and verdicts that the lab writes. Pure, except `replace`.

A table is replaced as a whole in one transaction: never is half of it in force, and connections already tracked live on.
A rule is a list of expressions, each a function below; `nft list ruleset` shows them as usual. Constants: linux/netfilter/nf_tables.h.
"""
import functools
import ipaddress
import socket
import struct
from collections.abc import Sequence

from meshtls.lab.node.netlink import APPEND, CREATE, Message, attr, nest, talk

_SUBSYS, _IPV4 = 10, 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
TCP, UDP = 6, 17
_REG_VERDICT, _REG_A, _REG_B = 0, 1, 2
_META = {"mark": 3, "iifname": 6, "oifname": 7, "skuid": 10, "skgid": 11, "l4proto": 16}

Expr = bytes
Rule = Sequence[Expr]


class Chain:
    """`hook` "" makes a chain to jump to; `kind` is "nat" or "filter"."""

    __slots__ = ("name", "rules", "hook", "kind", "priority")

    def __init__(self, name: str, rules: Sequence[Rule], hook: str = "", kind: str = "filter", priority: int = 0) -> None:
        self.name, self.rules, self.hook, self.kind, self.priority = name, rules, hook, kind, priority


def _be(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def _expr(name: str, *attrs: bytes) -> Expr:
    return nest(1, attr(1, name.encode() + b"\0"), nest(2, *attrs))


def _compare(value: bytes, negate: bool = False) -> Expr:
    return _expr("cmp", attr(1, _be(_REG_A)), attr(2, _be(int(negate))), nest(3, attr(1, value)))


@functools.lru_cache(maxsize=1 << 14)
def _payload(base: int, offset: int, length: int) -> Expr:
    return _expr("payload", attr(1, _be(_REG_A)), attr(2, _be(base)), attr(3, _be(offset)), attr(4, _be(length)))


def _load(register: int, value: bytes) -> Expr:
    return _expr("immediate", attr(1, _be(register)), nest(2, attr(1, value)))


@functools.lru_cache(maxsize=1 << 14)
def meta(key: str, value: int | str, negate: bool = False) -> Expr:
    """`meta KEY [!=] VALUE`: mark, skuid, skgid, l4proto by number; iifname, oifname by name."""
    if isinstance(value, str):
        data = value.encode().ljust(16, b"\0")
    else:
        data = struct.pack("=B" if key == "l4proto" else "=I", value)
    return _expr("meta", attr(1, _be(_REG_A)), attr(2, _be(_META[key]))) + _compare(data, negate)


@functools.lru_cache(maxsize=1 << 14)
def _address(offset: int, network: str, negate: bool) -> Expr:
    net = ipaddress.IPv4Network(network, strict=False)
    if net.prefixlen == 32:
        return _payload(1, offset, 4) + _compare(net.network_address.packed, negate)
    mask = _expr("bitwise", attr(1, _be(_REG_A)), attr(2, _be(_REG_A)), attr(3, _be(4)), nest(4, attr(1, net.netmask.packed)),
                 nest(5, attr(1, b"\0\0\0\0")))
    return _payload(1, offset, 4) + mask + _compare(net.network_address.packed, negate)


def saddr(network: str, negate: bool = False) -> Expr:
    return _address(12, network, negate)


def daddr(network: str, negate: bool = False) -> Expr:
    return _address(16, network, negate)


@functools.lru_cache(maxsize=1 << 14)
def dport(protocol: int, first: int, last: int = 0, negate: bool = False) -> Expr:
    """A destination port or an inclusive range of them, of TCP or UDP."""
    head = meta("l4proto", protocol) + _payload(2, 2, 2)
    if last and last != first:
        return head + _expr("range", attr(1, _be(_REG_A)), attr(2, _be(int(negate))), nest(3, attr(1, struct.pack(">H", first))),
                            nest(4, attr(1, struct.pack(">H", last))))
    return head + _compare(struct.pack(">H", first), negate)


@functools.lru_cache(maxsize=1 << 14)
def established() -> Expr:
    """`ct state established,related`."""
    mask = _expr("bitwise", attr(1, _be(_REG_A)), attr(2, _be(_REG_A)), attr(3, _be(4)), nest(4, attr(1, struct.pack("=I", 2 | 4))),
                 nest(5, attr(1, b"\0\0\0\0")))
    return _expr("ct", attr(1, _be(_REG_A)), attr(2, _be(0))) + mask + _compare(b"\0\0\0\0", negate=True)


@functools.lru_cache(maxsize=1 << 14)
def one_in(count: int) -> Expr:
    """Holds for a random one of `count` packets."""
    return _expr("numgen", attr(1, _be(_REG_A)), attr(2, _be(count)), attr(3, _be(1)), attr(4, _be(0))) + _compare(struct.pack("=I", 0))


@functools.lru_cache(maxsize=1 << 14)
def dnat(ip: str, port: int) -> Expr:
    return (_load(_REG_A, socket.inet_aton(ip)) + _load(_REG_B, struct.pack(">H", port))
            + _expr("nat", attr(1, _be(1)), attr(2, _be(_IPV4)), attr(3, _be(_REG_A)), attr(5, _be(_REG_B))))


@functools.lru_cache(maxsize=1 << 14)
def redirect(port: int) -> Expr:
    return _load(_REG_A, struct.pack(">H", port)) + _expr("redir", attr(1, _be(_REG_A)))


@functools.lru_cache(maxsize=1 << 14)
def masquerade() -> Expr:
    return _expr("masq")


@functools.lru_cache(maxsize=1 << 14)
def reject() -> Expr:
    """ICMP port unreachable: ECONNREFUSED at the client, as kube-proxy answers for a Service without endpoints."""
    return _expr("reject", attr(1, _be(0)), attr(2, b"\x03"))


@functools.lru_cache(maxsize=1 << 14)
def _verdict(code: int, chain: str = "") -> Expr:
    named = (attr(2, chain.encode() + b"\0"),) if chain else ()
    return _expr("immediate", attr(1, _be(_REG_VERDICT)), nest(2, nest(2, attr(1, _be(code)), *named)))


DROP, ACCEPT, RETURN = _verdict(0), _verdict(1), _verdict(-5)


def jump(chain: str) -> Expr:
    return _verdict(-3, chain)


def _message(kind: int, body: bytes, flags: int = 0) -> Message:
    return Message(_SUBSYS << 8 | kind, struct.pack(">BBH", _IPV4, 0, 0) + body, flags)


def messages(table: str, chains: Sequence[Chain]) -> list[Message]:
    """The transaction that makes `table` hold exactly these chains."""
    name = attr(1, table.encode() + b"\0")
    edge = struct.pack(">BBH", 0, 0, _SUBSYS)
    out = [Message(_BATCH_BEGIN, edge), _message(_NEWTABLE, name, CREATE), _message(_DELTABLE, name), _message(_NEWTABLE, name, CREATE)]
    for chain in chains:
        body = name + attr(3, chain.name.encode() + b"\0")
        if chain.hook:
            body += (nest(4, attr(1, _be(HOOKS[chain.hook])), attr(2, _be(chain.priority))) + attr(5, _be(1))
                     + attr(7, chain.kind.encode() + b"\0"))
        out.append(_message(_NEWCHAIN, body, CREATE))
    for chain in chains:
        head = name + attr(2, chain.name.encode() + b"\0")
        out += [_message(_NEWRULE, head + nest(4, *rule), CREATE | APPEND) for rule in chain.rules]
    out.append(Message(_BATCH_END, edge))
    return out


def replace(sock: socket.socket, table: str, chains: Sequence[Chain]) -> None:
    """Put the table in force in the network namespace of a netlink socket. Raises OSError, and then nothing has changed."""
    batch = messages(table, chains)
    talk(sock, batch, acked=len(batch) - 2)

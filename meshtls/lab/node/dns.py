"""The cluster's DNS: names of Services and of pods behind headless ones, answered from the store. Everything else does not exist.

`answer` is pure (query bytes and a lookup in, answer bytes out); `Dns` is the server on UDP and TCP. As CoreDNS has it: A for a Service
is its cluster IP, or every ready endpoint's address for a headless one (unready too with publishNotReadyAddresses); SRV for named ports;
`<hostname>.<service>` for pods of a headless Service; `<a-b-c-d>.<namespace>.pod`; CNAME for ExternalName; AAAA exists and is empty.
"""
import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api.store import Store

DOMAIN = "cluster.local"
A, CNAME, SRV, AAAA, ANY = 1, 5, 33, 28, 255
TTL_S, _LONGEST_CHAIN = 5, 8
SLICES = "endpointslices.discovery.k8s.io"

Records = list[tuple[int, Any]]
"""(type, value): A -> address, CNAME -> name, SRV -> (port, target)."""


def lookup(store: Store, name: str) -> Records | None:
    """All records of a name (lower case, without the last dot); None if there is no such name."""
    if name == DOMAIN or not name.endswith("." + DOMAIN):
        return [] if name == DOMAIN else None
    parts = name[:-len(DOMAIN) - 1].split(".")
    if parts[-1] == "pod" and len(parts) == 3:
        ip = parts[0].replace("-", ".")
        known = any((pod.get("status") or {}).get("podIP") == ip for pod in store.list("pods", parts[1]))
        return [(A, ip)] if known else None
    if parts[-1] != "svc":
        return None
    if len(parts) < 3:
        return [] if len(parts) == 1 or store.get("namespaces", "", parts[0]) else None
    *rest, service_name, namespace, _ = parts
    service = store.get("services", namespace, service_name)
    if service is None:
        return None
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return [(CNAME, str(spec.get("externalName", "")).rstrip(".").lower())] if not rest else None
    headless = spec.get("clusterIP") in (None, "", "None")
    if not rest:
        return [(A, ip) for ip in dict.fromkeys(ip for ip, _, _ in _endpoints(store, service))] if headless else [(A, spec["clusterIP"])]
    if len(rest) == 2 and rest[0].startswith("_") and rest[1].startswith("_"):
        return _srv(store, service, headless, rest[0][1:], rest[1][1:].upper(), f"{service_name}.{namespace}.svc.{DOMAIN}")
    if len(rest) == 1 and headless:
        found = [ip for ip, host, _ in _endpoints(store, service) if rest[0] in (host, ip.replace(".", "-"))]
        return [(A, ip) for ip in dict.fromkeys(found)] or None
    return None


def addresses(store: Store, name: str, search: list[str], ndots: int = 5) -> list[str]:
    """What a program's resolver makes of a name by resolv.conf's rules: IPv4 addresses, [] for none."""
    given, below = [name.lower().rstrip(".")], [f"{name.lower()}.{domain}" for domain in search]
    for candidate in given if name.endswith(".") else below + given if name.count(".") < ndots else given + below:
        found = lookup(store, candidate)
        for _ in range(_LONGEST_CHAIN):
            if not found or found[0][0] != CNAME:
                break
            found = lookup(store, found[0][1])
        if ips := [str(value) for type_, value in found or [] if type_ == A]:
            return ips
    return []


def _endpoints(store: Store, service: dict[str, Any]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(address, hostname or "", ports) of everything that DNS shows of a Service."""
    metadata = service["metadata"]
    all_ = (service.get("spec") or {}).get("publishNotReadyAddresses")
    for piece in store.list(SLICES, metadata["namespace"], {"kubernetes.io/service-name": metadata["name"]}):
        for endpoint in piece.get("endpoints") or []:
            if all_ or (endpoint.get("conditions") or {}).get("ready", True) is not False:
                for ip in endpoint.get("addresses") or []:
                    yield ip, endpoint.get("hostname") or "", piece.get("ports") or []


def _srv(store: Store, service: dict[str, Any], headless: bool, port: str, protocol: str, name: str) -> Records | None:
    if not headless:
        return [(SRV, (each["port"], name)) for each in service["spec"].get("ports") or []
                if each.get("name") == port and each.get("protocol", "TCP") == protocol] or None
    return [(SRV, (each["port"], f"{host or ip.replace('.', '-')}.{name}")) for ip, host, ports in _endpoints(store, service)
            for each in ports if each.get("name") == port and each.get("protocol", "TCP") == protocol] or None


def _name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in text.encode("latin-1", "replace").split(b".") if label) + b"\0"


_DATA: dict[int, Callable[[Any], bytes]] = {
    A: socket.inet_aton, CNAME: _name, SRV: lambda value: struct.pack(">HHH", 0, 100, value[0]) + _name(value[1])}


def answer(query: bytes, find: Callable[[str], Records | None], largest: int = 65535) -> bytes:
    """The answer to one query. b"" for what is no query. Longer than `largest` is cut, with the flag that says so."""
    if len(query) < 17 or query[2] & 0x80:
        return b""
    labels, offset = [], 12
    while offset < len(query) and query[offset]:
        length = query[offset]
        if length > 63 or offset + 1 + length >= len(query):
            return b""
        labels.append(query[offset + 1:offset + 1 + length].decode("latin-1").lower())
        offset += 1 + length
    if offset + 5 > len(query):
        return b""
    (kind,) = struct.unpack_from(">H", query, offset + 1)
    question, name = query[12:offset + 5], ".".join(labels)
    found = find(name)
    records: list[tuple[str, int, Any]] = []
    while found and found[0][0] == CNAME and kind in (A, AAAA) and len(records) < _LONGEST_CHAIN:
        records.append((name, *found[0]))
        name = found[0][1]
        found = find(name)
    records += [(name, type_, value) for type_, value in found or [] if kind in (type_, ANY)]
    code = 3 if found is None and not records else 0
    body, count = b"", 0
    for owner, type_, value in records:
        data = _DATA[type_](value)
        record = _name(owner) + struct.pack(">HHIH", type_, 1, TTL_S, len(data)) + data
        if 12 + len(question) + len(body) + len(record) > largest:
            break
        body, count = body + record, count + 1
    flags = 0x8400 | (query[2] & 1) << 8 | 0x80 | code | (0x200 if count < len(records) else 0)
    return query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + question + body


class Dns(asyncio.DatagramProtocol):
    """UDP and TCP on one address."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def serve(self, ip: str, port: int = 53) -> None:
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(ip, port))
        self._server = await asyncio.start_server(self._stream, ip, port)

    def _answer(self, query: bytes, largest: int = 65535) -> bytes:
        return answer(query, lambda name: lookup(self._store, name), largest)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        said = self._answer(data, 512)
        if said:
            self._transport.sendto(said, addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError), contextlib.closing(writer):
            while True:
                (length,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 10))
                said = self._answer(await reader.readexactly(length))
                writer.write(struct.pack(">H", len(said)) + said)
                await writer.drain()

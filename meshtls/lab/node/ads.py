"""Endpoints for Envoys: one gRPC stream each (ADS), since by REST every cluster of every proxy would hold a request of its own.

Laws (state of the world, Envoy 1.40):
  1. The first request that carries the newest answer's nonce acknowledges it. One with a nonce heard before asks again, for a cluster that
     has been made anew: all is sent again.
  2. An acknowledgement and a new question may come as one; so after clusters were sent, the next request is answered in full.
  3. An answer may hold some of the endpoints asked for: those that changed. A cluster that is unknown has none.
"""
import asyncio
import functools
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from meshtls.lab.api import protobuf
from meshtls.lab.istio.discovery import Endpoints

if TYPE_CHECKING:
    from meshtls.lab.node.xds import Proxy, Xds

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
TYPE_ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_NODE, _NAMES, _NONCE, _ERROR = 2, 3, 5, 6  # fields of a DiscoveryRequest
Named = dict[str, Endpoints]


class Subscription:
    """What one Envoy asked for, has been sent and has taken. Pure."""

    def __init__(self) -> None:
        self.owed = False
        self._wanted: tuple[str, ...] = ()
        self._sent: Named = {}
        self._nonce, self._heard, self._rejected = 0, -1, False

    def ask(self, names: Iterable[str], nonce: int, rejected: bool, current: Named) -> Named:
        """A request has come: what to answer, {} for nothing."""
        again, self.owed = self.owed or nonce <= self._heard, False
        self._heard, self._wanted = max(nonce, self._heard), tuple(names)
        self._rejected = rejected
        self._sent = {name: self._sent[name] for name in self._wanted if name in self._sent and not again}
        return self.changed(current)

    def changed(self, current: Named) -> Named:
        """What it asked for and has not, or not as it is now."""
        return {name: now for name in self._wanted if self._sent.get(name) != (now := current.get(name, ()))}

    def send(self, answer: Named) -> int:
        """The answer goes out; its nonce."""
        self._sent |= answer
        self._nonce += 1
        return self._nonce

    def settled(self, current: Named) -> bool:
        """Whether it has taken all that is current."""
        return self._heard == self._nonce and not self._rejected and not self.changed(current) and current.keys() <= self._sent.keys()


class Stream:
    """One Envoy's connection, from which its proxy is told its endpoints."""

    def __init__(self, server: "Xds", writer: asyncio.StreamWriter) -> None:
        self.subscription = Subscription()
        self._server, self._writer = server, writer
        self._proxy: Proxy | None = None
        self._http = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._stream, self._received, self._unsent = 0, b"", b""

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the connection ends."""
        self._http.initiate_connection()
        data = PREFACE
        try:
            while data:
                for event in self._http.receive_data(data):
                    if isinstance(event, RequestReceived):
                        self._stream = event.stream_id
                        self._http.send_headers(self._stream, [(":status", "200"), ("content-type", "application/grpc")])
                    elif isinstance(event, DataReceived):
                        self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        self._received += event.data
                    elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                        return
                for message in self._messages():
                    self._asked(list(protobuf.fields(message)))
                self._flush()
                await self._writer.drain()
                data = await reader.read(1 << 16)
        except (ProtocolError, LookupError, ValueError):
            return  # not an Envoy, or one of a pod that is gone

    def _asked(self, found: list[tuple[int, bytes]]) -> None:
        """A request: its first says whose it is. Raises LookupError."""
        fields = dict(found)
        if self._proxy is None:
            self._proxy = self._server.proxies[dict(protobuf.fields(fields[_NODE]))[1].decode()]
            self._proxy.stream = self
        names = [value.decode() for number, value in found if number == _NAMES]
        self._answer(self.subscription.ask(names, int(fields.get(_NONCE, b"0")), _ERROR in fields, self._proxy.endpoints))
        self._server.taken(self._proxy)

    def update(self, current: Named) -> None:
        """Send what changed; to an Envoy that has ended, nothing."""
        if not self._writer.is_closing():
            self._answer(self.subscription.changed(current))
            self._flush()

    def _answer(self, answer: Named) -> None:
        if answer:
            nonce = str(self.subscription.send(answer)).encode()
            body = b"".join(field(2, assignment(name, found)) for name, found in answer.items())
            body = field(1, nonce) + body + field(4, TYPE_ENDPOINTS.encode()) + field(5, nonce)
            self._unsent += struct.pack(">BI", 0, len(body)) + body

    def _flush(self) -> None:
        while self._unsent and self._stream:
            room = min(self._http.local_flow_control_window(self._stream), self._http.max_outbound_frame_size)
            if room <= 0:
                break
            self._http.send_data(self._stream, self._unsent[:room])
            self._unsent = self._unsent[room:]
        self._writer.write(self._http.data_to_send())

    def _messages(self) -> Iterator[bytes]:
        while len(self._received) >= 5:
            end = 5 + int(struct.unpack(">I", self._received[1:5])[0])
            if len(self._received) < end:
                return
            yield self._received[5:end]
            self._received = self._received[end:]


@functools.lru_cache(maxsize=1 << 14)
def assignment(name: str, endpoints: Endpoints) -> bytes:
    """A ClusterLoadAssignment in an Any, as protobuf."""
    mark = field(1, field(1, b"envoy.transport_socket_match") + field(2, field(1, field(1, b"tlsMode") + field(2, field(3, b"istio")))))
    hosts = b"".join(
        field(2, field(1, field(1, field(1, field(2, ip.encode()) + b"\x18" + _varint(port)))) + (field(3, mark) if mtls else b""))
        for ip, port, mtls in endpoints)
    body = field(1, name.encode()) + (field(2, hosts) if hosts else b"")
    return field(1, TYPE_ENDPOINTS.encode()) + field(2, body)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data

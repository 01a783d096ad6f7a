"""gRPC's health protocol as a kubelet asks it (pkg/probe/grpc, grpc.health.v1): one Check on a new HTTP/2 connection.

That a port is open says nothing: in front of it a proxy may take every connection and then refuse the call.
"""
import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

SERVING, UNIMPLEMENTED = 1, "12"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_TAG_SERVICE, _TAG_STATUS = b"\x0a", b"\x08"


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str) -> str:
    """"" if the service is healthy, else the probe's message. The caller limits the time and closes the connection. Raises OSError."""
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.initiate_connection()
    http.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", authority),
                          ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "kube-probe/1.36")])
    name = service.encode()
    size = bytes([len(name)] if len(name) < 128 else [len(name) & 127 | 128, len(name) >> 7 & 127])
    asked = _TAG_SERVICE + size + name if name else b""
    http.send_data(1, b"\0" + len(asked).to_bytes(4, "big") + asked, end_stream=True)
    answer, fields = b"", dict[str, str]()
    writer.write(http.data_to_send())
    while data := await reader.read(1 << 16):
        try:
            events: list[Event] = http.receive_data(data)
        except ProtocolError:
            return "error: health rpc probe failed: the answer is not HTTP/2"
        for event in events:
            if isinstance(event, ResponseReceived | TrailersReceived):
                fields |= {str(key): str(value) for key, value in event.headers or []}
            elif isinstance(event, DataReceived):
                answer += event.data or b""
            elif isinstance(event, StreamEnded):
                return verdict(fields, answer)
            elif isinstance(event, StreamReset | ConnectionTerminated):
                return "error: health rpc probe failed: the call was reset"
        writer.write(http.data_to_send())
    return "error: health rpc probe failed: error reading server preface: EOF"


def verdict(fields: dict[str, str], answer: bytes) -> str:
    """What a whole answer means; its message is one field, the status, and an empty one is status 0."""
    code, said = fields.get("grpc-status"), fields.get("grpc-message", "")
    if code == UNIMPLEMENTED:
        return f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}"
    if code != "0":
        return f"error: health rpc probe failed: {said or 'status ' + (code or fields.get(':status', 'unknown'))}"
    body = answer[5:]
    status = body[1] if body[:1] == _TAG_STATUS and len(body) > 1 else 0
    if status == SERVING:
        return ""
    return f'service unhealthy (responded with "{STATUSES[status] if status < len(STATUSES) else status}")'

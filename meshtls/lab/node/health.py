"""gRPC's health protocol as a kubelet asks it (pkg/probe/grpc, grpc.health.v1): one Check on a new HTTP/2 connection.

That a port is open says nothing: in front of it a proxy may take every connection and then refuse the call.
"""
import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from meshtls.lab.api import protobuf
from meshtls.lab.node.ads import field
from meshtls.lab.node.http1 import NoAnswer

SERVING, UNIMPLEMENTED = 1, "12"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVICE, _STATUS = 1, 1  # fields of the question and of the answer


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str) -> None:
    """Raises NoAnswer with the probe's message if the service is not healthy. The caller limits the time and closes the connection."""
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.initiate_connection()
    http.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", authority),
                          ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "kube-probe/1.36")])
    asked = field(_SERVICE, service.encode()) if service else b""
    http.send_data(1, b"\0" + len(asked).to_bytes(4, "big") + asked, end_stream=True)
    answer, fields, why = b"", dict[str, str](), "error reading server preface: EOF"
    writer.write(http.data_to_send())
    try:
        while data := await reader.read(1 << 16):
            for event in http.receive_data(data):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    fields |= {str(key): str(value) for key, value in event.headers or []}
                elif isinstance(event, DataReceived):
                    answer += event.data or b""
                elif isinstance(event, StreamEnded):
                    return verdict(fields, answer)
                elif isinstance(event, StreamReset | ConnectionTerminated):
                    raise NoAnswer("error: health rpc probe failed: the call was reset")
            writer.write(http.data_to_send())
    except (ProtocolError, ValueError, LookupError):
        why = "the answer is not HTTP/2"
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    raise NoAnswer(f"error: health rpc probe failed: {why}")


def verdict(fields: dict[str, str], answer: bytes) -> None:
    """What a whole answer means; its message is one field, the status, and an empty one is status 0. Raises NoAnswer."""
    code, said = fields.get("grpc-status"), fields.get("grpc-message", "")
    if code == UNIMPLEMENTED:
        raise NoAnswer(f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}")
    if code != "0":
        raise NoAnswer(f"error: health rpc probe failed: {said or 'status ' + (code or fields.get(':status', 'unknown'))}")
    status = dict(protobuf.fields(answer[5:])).get(_STATUS, 0)
    if status != SERVING:
        raise NoAnswer(f'service unhealthy (responded with "{STATUSES[status] if status < len(STATUSES) else status}")')

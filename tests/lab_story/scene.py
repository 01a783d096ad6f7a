"""What the tests on a lab have in common: manifests of one line, programs that pods run, and waiting for what is to come."""

import json
import time
from collections.abc import Callable
from typing import Any

from meshtls.cluster.client import Client
from meshtls.errors import MeshtlsError

Json = dict[str, Any]

# An HTTP server on 8080, in a form that a program of its own can follow.
HTTP = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
"""
SERVER = HTTP + "server.serve_forever()"

# What a host on 8080 answers: the status, or the name of the error; for a program of its own to follow.
ASKING = """
import http.client
def answer(host, timeout):
    try:
        connection = http.client.HTTPConnection(host, 8080, timeout=timeout)
        connection.request("GET", "/")
        status = connection.getresponse().status
        connection.close()
        return status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
"""

# How many bytes of a line a host on 9000 sends back, or the name of the error; for a program of its own to follow.
ECHOING = """
import socket
def echoed(host):
    try:
        with socket.create_connection((host, 9000), 5) as s:
            s.settimeout(5)
            s.sendall(b"hello\\n")
            return len(s.recv(100))
    except OSError as error:
        return type(error).__name__
"""

# HTTP on 8080; lines come back on 9000 and 9001.
HTTP_AND_LINES = """
import asyncio, os, signal

async def http(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()

async def lines(reader, writer):
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.start_server(http, "0.0.0.0", 8080)
    for port in (9000, 9001):
        await asyncio.start_server(lines, "0.0.0.0", port)
    await asyncio.Event().wait()

asyncio.run(main())
"""


# gRPC's health service, by hand: answers every call with the status that it is told (1 is SERVING, 2 NOT_SERVING)
HEALTH = """
import os, signal, socketserver, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data = b""
        while not data.endswith(b"\\0\\0\\0\\0\\0"):  # the question is empty, and the last that comes
            more = self.request.recv(65536)
            if not more:
                return
            data += more
        if not data.startswith(b"PRI * HTTP/2.0"):
            return
        ends = b"\\x00\\x0bgrpc-status\\x010"
        self.request.sendall(frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 4, 1, b"\\x88") + frame(0, 0, 1, b"\\0\\0\\0\\0\\2\\x08" + bytes([int(sys.argv[1])]))
                             + frame(1, 5, 1, ends))
        self.request.recv(65536)

socketserver.ThreadingTCPServer(("", 8080), Handler).serve_forever()
"""


def namespace(name: str, **labels: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


MESHED = namespace("mesh", **{"istio-injection": "enabled"})
BARE = namespace("bare")


def container(program: str, *arguments: str, name: str = "app", **rest: Any) -> Json:
    return {"name": name, "image": "python:3", "command": ["python3", "-u", "-c", program, *arguments], **rest}


def pod(name: str, where: str, *containers: Json, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    metadata = {"name": name, "namespace": where, "labels": {"app": name}, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 1, **spec}}


def service(name: str, where: str, *, ports: dict[str, int] | None = None, **spec: Any) -> Json:
    listed = [{"name": title, "port": port} for title, port in (ports or {"http": 8080}).items()]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where}, "spec": {"selector": {"app": name}, "ports": listed, **spec}}


def policy(mode: str, where: str = "mesh", name: str = "default", **spec: Any) -> Json:
    """A PeerAuthentication; an empty mode is left out."""
    whole = {"mtls": {"mode": mode}, **spec} if mode else spec
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": name, "namespace": where}, "spec": whole}


def until(what: Callable[[], Any], limit_s: float = 60.0) -> Any:
    """The first true answer of `what`; fails after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"nothing within {limit_s} s")


def lines(client: Client, where: str, name: str, of: str = "app", tail: int | None = None) -> list[str]:
    """What a container has written; [] while it has not begun."""
    try:
        return list(client.logs(where, name, of, tail=tail))
    except MeshtlsError:
        return []


def told(client: Client, where: str, name: str, of: str = "app", tail: int | None = None) -> list[Json]:
    """The JSON lines of a container."""
    return [json.loads(line) for line in lines(client, where, name, of, tail) if line.startswith("{")]

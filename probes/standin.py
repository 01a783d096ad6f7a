"""The stand-in: in place of a workload that cannot run here, it serves the ports that the workload has and calls whom it calls.

    python standin.py plan.json

The plan: {"name", "serve": [{"port", "as"}], "calls": [{"id", "host", "port", "as", "every_s", "after_s"}]}. What is served and asked, `as`:

    http    HTTP/1.1, and HTTP/2 where the peer begins with it (a sidecar does for grpc and http2 ports)
    tcp     the first bytes come back
    tls     HTTP inside TLS of its own
    banner  the server speaks first, as databases and mail servers do

Each call is a connection of its own and one JSON line: {"call", "at", "ok", "said"}. `ok` means that an application answered, or that a
proxy did by a policy that is not about TLS (403, 404); `said` is what came instead. Python's standard library only; the lab runs it on its own Python.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import sys
import time

LIMIT_S = 3.0
MARK = b"x-stand-in"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def told(line: dict) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


# --- serving --------------------------------------------------------------------------------------------------------------


class Servers:
    def __init__(self, name: str):
        self.name = name.encode()

    async def http(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PRI "):
            await self.http2(reader, writer)
            return
        while True:
            length = next((f.split(b":")[1].strip() for f in head.split(b"\r\n") if f.lower().startswith(b"content-length:")), b"0")
            await reader.readexactly(int(length))
            writer.write(b"HTTP/1.1 200 OK\r\n%s: %s\r\ncontent-length: 2\r\n\r\nok" % (MARK, self.name))
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")

    async def http2(self, reader, writer):
        """Every request is answered with status 200 and no body: enough for a proxy that asks."""
        await reader.readexactly(len(PREFACE) - 18)
        writer.write(frame(4, 0, 0))
        while True:
            size, kind, flags, stream = split(await reader.readexactly(9))
            body = await reader.readexactly(size)
            if kind == 4 and not flags & 1:
                writer.write(frame(4, 1, 0))
            elif kind == 6 and not flags & 1:
                writer.write(frame(6, 1, 0, body))
            elif kind in (0, 1) and flags & 1:
                named = b"\x00" + bytes([len(MARK)]) + MARK + bytes([min(len(self.name), 126)]) + self.name[:126]
                writer.write(frame(1, 5, stream, b"\x88" + named))
            await writer.drain()

    async def tcp(self, reader, writer):
        while True:
            data = await reader.read(4096)
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def banner(self, reader, writer):
        writer.write(b"220 " + self.name + b" speaks first\r\n")
        await self.tcp(reader, writer)

    def handler(self, kind: str):
        inner = getattr(self, "http" if kind == "tls" else kind)

        async def serve(reader, writer):
            try:
                await inner(reader, writer)
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                pass  # the peer went away, or spoke something else
            finally:
                writer.close()

        return serve


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def split(head: bytes):
    return int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF


async def listen(plan: dict, folder: str) -> list:
    """Serve what the plan says; the ports that are served (IPv4; where the plan says 0, a free one)."""
    servers, ports = Servers(plan["name"]), []
    for each in plan.get("serve", []):
        context = None
        if each["as"] == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder + "/stand-in.pem")
        try:
            server = await asyncio.start_server(servers.handler(each["as"]), None, each["port"], ssl=context, backlog=256)
            ports += [it.getsockname()[1] for it in server.sockets if it.family == socket.AF_INET]
        except OSError as error:  # a port below 1024, or one that another pod of the host's network has: its callers will tell
            told({"port": each["port"], "unserved": error.strerror or str(error)})
    return ports


# --- calling --------------------------------------------------------------------------------------------------------------


async def ask(call: dict):
    """(whether somebody answered, what was said)."""
    context = None
    if call["as"] == "tls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = call["host"] if context else None
    reader, writer = await asyncio.open_connection(call["host"], call["port"], ssl=context, server_hostname=name)
    try:
        if call["as"] == "banner":
            return judged(await reader.readline())
        if call["as"] == "tcp":
            writer.write(b"stand-in\n")
            return judged(await reader.readline())
        request = "GET / HTTP/1.1\r\nhost: %s:%d\r\nconnection: close\r\nuser-agent: stand-in\r\n\r\n" % (call["host"], call["port"])
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        if MARK in head.lower() or status < 500:
            return True, "answered %d" % status
        return False, ("%d %s" % (status, (await reader.read(300)).decode("utf-8", "replace"))).strip()
    finally:
        writer.close()


def judged(line: bytes):
    return (True, "answered") if line else (False, "closed without an answer")


def fault(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer within %gs" % LIMIT_S
    if isinstance(error, EOFError):
        return "closed without an answer"
    return (getattr(error, "strerror", "") or str(error) or type(error).__name__)[:200]


async def calling(call: dict) -> None:
    await asyncio.sleep(call.get("after_s", 0))
    while True:
        began = time.time()
        try:
            ok, said = await asyncio.wait_for(ask(call), LIMIT_S)
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
            ok, said = False, fault(error)
        told({"call": call["id"], "at": round(began, 3), "ok": ok, "said": said})
        await asyncio.sleep(max(0.05, call["every_s"] - (time.time() - began)))


async def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ports = await listen(plan, path.rpartition("/")[0] or ".")
    told({"ready": True, "name": plan["name"], "ports": ports})
    tasks = [asyncio.ensure_future(calling(call)) for call in plan.get("calls", [])]
    await stop.wait()
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python standin.py plan.json")
    asyncio.run(main(sys.argv[1]))

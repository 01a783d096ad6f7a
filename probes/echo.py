"""The echo server: it answers with what it saw, so that a probe can tell how its bytes travelled.

    python echo.py --name NAME [--http PORT]... [--tcp PORT]... [--banner PORT]... [--tls PORT:CERT.pem]...

    http    answers each request with JSON: peer address, method, path, headers (X-Forwarded-Client-Cert among them)
    tcp     answers the first bytes with one line `meshtls-echo {JSON}`, whatever they are
    banner  speaks first, as databases and mail servers do
    tls     http inside TLS of its own, for "the application brings its own TLS"

Python's standard library only (3.8 or newer).  Prints one line when it listens, and ends at once on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys

LIMIT = 16384  # bytes of a request
IDLE_S = 60  # an open connection that sends nothing is closed after this


class Echo:
    def __init__(self, name: str):
        self.name = name

    def seen(self, writer, **more) -> bytes:
        peer, local = writer.get_extra_info("peername") or ("",), writer.get_extra_info("sockname") or ("",)
        tls = writer.get_extra_info("ssl_object")
        answer = {"meshtls_echo": self.name, "peer": "%s:%s" % tuple(peer[:2]), "local": "%s:%s" % tuple(local[:2])}
        answer["tls"] = {"version": tls.version(), "alpn": tls.selected_alpn_protocol()} if tls else None
        answer.update(more)
        return json.dumps(answer).encode("utf-8")

    async def http(self, reader, writer):
        while True:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a TLS hello: answer at once, as HTTP servers do, instead of waiting for a line
                writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path = (head[0].split(" ") + ["", ""])[:2]
            headers = {}
            for field in head[1:]:
                name, _, value = field.partition(":")
                if name:
                    headers[name.strip().lower()] = value.strip()[:1024]
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length):
                await reader.readexactly(min(int(length), LIMIT))
            body = self.seen(writer, method=method, path=path[:256], headers=headers)
            close = headers.get("connection", "").lower() == "close"
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s"
                % (len(body), b"close" if close else b"keep-alive", b"" if method == "HEAD" else body)
            )
            await writer.drain()
            if close:
                return

    async def tcp(self, reader, writer):
        data = await reader.read(LIMIT)
        while data:
            writer.write(b"meshtls-echo " + self.seen(writer, bytes=len(data), first=data[:8].hex()) + b"\n")
            await writer.drain()
            data = await reader.read(LIMIT)

    async def banner(self, reader, writer):
        writer.write(b"220 meshtls-echo " + self.name.encode("utf-8") + b" speaks first\r\n")
        await writer.drain()
        await reader.read(LIMIT)

    def served(self, handler):
        async def serve(reader, writer):
            try:
                await asyncio.wait_for(handler(reader, writer), IDLE_S)
            except (TimeoutError, OSError, EOFError, ValueError, asyncio.LimitOverrunError, ssl.SSLError):
                pass  # the peer went away, or sent what is no request: its own probe says so
            finally:
                writer.close()

        return serve


async def main(arguments) -> None:
    echo, stop = Echo(arguments.name), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    wanted = [(echo.http, port, None) for port in arguments.http] + [(echo.tcp, port, None) for port in arguments.tcp]
    wanted += [(echo.banner, port, None) for port in arguments.banner]
    for given in arguments.tls:
        port, _, file = given.partition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        wanted.append((echo.http, int(port), context))
    servers = []
    for handler, port, context in wanted:
        servers.append(
            await asyncio.start_server(
                echo.served(handler), arguments.bind, port, ssl=context, limit=LIMIT, backlog=1024
            )
        )
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"ready": True, "name": arguments.name, "ports": ports}), flush=True)
    await stop.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answers with what it saw.")
    parser.add_argument("--name", default="echo")
    parser.add_argument("--bind", default=None, help="address; all, IPv4 and IPv6, if not given")
    for kind in ("http", "tcp", "banner"):
        parser.add_argument("--" + kind, type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--tls", action="append", default=[], metavar="PORT:CERT.pem")
    try:
        asyncio.run(main(parser.parse_args()))
    except OSError as error:
        sys.exit("cannot listen: %s" % error)

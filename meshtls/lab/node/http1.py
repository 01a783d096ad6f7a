"""HTTP/1.1 for what the lab itself asks and answers: probes, Envoy's admin socket, the status port, discovery."""
import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11

LARGEST = 64 << 20
_CHUNK = 1 << 16

Answer = tuple[int, bytes]
Handler = Callable[[str, str, bytes], Awaitable[Answer]]
"""(method, path with query, body) -> (status, body)."""


class NoAnswer(Exception):
    """No HTTP answer came: the message says what happened, in the words of the operating system."""


async def connect(address: tuple[str, int] | str, *, sock: socket.socket | None = None,
                  tls: ssl.SSLContext | None = None, source: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to a TCP address (through `sock`, which may live in another network, or from the address `source`) or to a unix socket's path.
    Raises NoAnswer."""
    try:
        if isinstance(address, str):
            return await asyncio.open_unix_connection(address)
        if sock is None:
            return await asyncio.open_connection(*address, ssl=tls, local_addr=(source, 0) if source else None)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
            return await asyncio.open_connection(sock=sock, ssl=tls, server_hostname="" if tls else None)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise NoAnswer(f"dial tcp {address[0]}:{address[1]}: connect: {_said(error)}" if isinstance(address, tuple) else _said(error)) from error


async def get(address: tuple[str, int] | str, path: str, *, method: str = "GET", headers: dict[str, str] | None = None,
              sock: socket.socket | None = None, tls: ssl.SSLContext | None = None, largest: int = LARGEST, source: str = "") -> Answer:
    """Ask once. Raises NoAnswer, or TimeoutError under asyncio.timeout."""
    reader, writer = await connect(address, sock=sock, tls=tls, source=source)
    http, status, body = h11.Connection(h11.CLIENT), 0, bytearray()
    host = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "admin"
    fields = {"host": host, "connection": "close"} | {name.lower(): value for name, value in (headers or {}).items()}
    try:
        writer.write(http.send(h11.Request(method=method, target=path, headers=list(fields.items()))) or b"")
        http.send(h11.EndOfMessage())
        while len(body) < largest and not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                data = await reader.read(_CHUNK)
                if not data and not status:
                    raise NoAnswer("EOF")
                http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return status, bytes(body)
    except OSError as error:
        raise NoAnswer(f"read: {_said(error)}") from error
    except h11.ProtocolError as error:
        raise NoAnswer("malformed HTTP response") from error
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, *, kind: str = "text/plain; charset=utf-8",
                 idle_s: float | None = None, head: bytes = b"") -> None:
    """Answer one connection's requests, with bodies of this `kind`, until it ends or is idle; `head` is of the first what has come already.
    By hand, since h11 takes four times as long and proxies ask often; a request's body has its length said."""
    try:
        while True:
            async with asyncio.timeout(idle_s):
                head = head or await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            method, target, _ = first.split(" ", 2)
            body = await reader.readexactly(min(int(fields.get("content-length", "0")), LARGEST))
            status, text = await handler(method, target, body)
            writer.write(b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
                         % (status, HTTPStatus(status).phrase.encode(), kind.encode(), len(text)) + text)
            await writer.drain()
            if fields.get("connection", "").lower() == "close":
                return
            head = b""
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
        pass  # the other side has ended, or speaks no HTTP
    finally:
        writer.close()


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

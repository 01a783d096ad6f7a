"""Just enough HTTP/1.1 for what the lab itself asks and answers: probes, Envoy's admin socket, the status port. One request a connection."""
import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

LARGEST = 64 << 20
_HEAD = 1 << 16

Answer = tuple[int, bytes]
Handler = Callable[[str, str], Awaitable[Answer]]
"""(method, path with query) -> (status, body)."""


class NoAnswer(Exception):
    """No HTTP answer came: the message says what happened, in the words of the operating system."""


async def connect(address: tuple[str, int] | str, sock: socket.socket | None = None,
                  tls: ssl.SSLContext | None = None, source: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to a TCP address (through `sock`, which may live in another network, or from the address `source`) or to a unix socket's path."""
    if isinstance(address, str):
        return await asyncio.open_unix_connection(address, limit=_HEAD)
    if sock is None:
        return await asyncio.open_connection(*address, ssl=tls, limit=_HEAD, local_addr=(source, 0) if source else None)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        return await asyncio.open_connection(sock=sock, ssl=tls, server_hostname="" if tls else None, limit=_HEAD)
    except BaseException:
        sock.close()
        raise


async def get(address: tuple[str, int] | str, path: str, *, method: str = "GET", headers: dict[str, str] | None = None,
              sock: socket.socket | None = None, tls: ssl.SSLContext | None = None, largest: int = LARGEST,
              source: str = "") -> Answer:
    """Ask once. Raises NoAnswer, or TimeoutError under asyncio.timeout."""
    try:
        reader, writer = await connect(address, sock, tls, source)
    except OSError as error:
        raise NoAnswer(f"dial tcp {address[0]}:{address[1]}: connect: {_said(error)}" if isinstance(address, tuple) else _said(error)) from error
    try:
        fields = {"Host": address if isinstance(address, str) else f"{address[0]}:{address[1]}", "Connection": "close"} | (headers or {})
        if isinstance(address, str):
            fields["Host"] = "admin"
        text = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1", "replace"))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        return status, _body(head, await _rest(reader, largest))
    except (OSError, asyncio.IncompleteReadError) as error:
        raise NoAnswer("EOF" if isinstance(error, asyncio.IncompleteReadError) else f"read: {_said(error)}") from error
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise NoAnswer("malformed HTTP response") from error
    finally:
        writer.close()


async def _rest(reader: asyncio.StreamReader, largest: int) -> bytes:
    parts, size = [], 0
    while size < largest:
        part = await reader.read(1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _body(head: bytes, rest: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    out, offset = [], 0
    while True:
        end = rest.find(b"\r\n", offset)
        size = int(rest[offset:end] or b"0", 16) if end > 0 else 0
        if not size:
            return b"".join(out)
        out.append(rest[end + 2:end + 2 + size])
        offset = end + 4 + size


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


async def serve(sock: socket.socket, handler: Handler) -> asyncio.Server:
    """Answer on a listening socket until the server is closed."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            status, body = await handler(method, path)
            writer.write(b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                         % (status, b"OK" if status < 400 else b"Error", len(body)) + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connection, sock=sock, limit=_HEAD)

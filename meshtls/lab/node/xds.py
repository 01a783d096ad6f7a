"""Serves Envoys their configuration: REST discovery over one unix socket, by long poll, so that a change arrives at once.

Laws (all measured on Envoy 1.40):
  1. A request whose version is the current one waits for the next; after POLL_S it is answered 304.
  2. A request with another version, when the current one has been sent to that Envoy, is a rejection: REST carries no error text. It
     waits for the next version instead of being sent the same again.
  3. Listeners that come with new clusters wait until the clusters are accepted.
  4. A frozen proxy (a test's wish) is answered nothing new; a delay holds every push back.
"""
import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

CLUSTERS, LISTENERS, SECRETS = "clusters", "listeners", "secrets"
POLL_S, CLUSTERS_FIRST_S = 50.0, 1.0
_LONGEST_REQUEST = 1 << 22


class _Node(msgspec.Struct):
    id: str = ""


class _Request(msgspec.Struct):
    version_info: str = ""
    node: _Node = msgspec.field(default_factory=_Node)
    resource_names: list[str] = []


class _Feed:
    """One kind of resource (or one secret) for one Envoy."""

    __slots__ = ("version", "body", "sent", "accepted", "rejected", "waiting")

    def __init__(self) -> None:
        self.version = self.sent = self.accepted = self.rejected = ""
        self.body = b""
        self.waiting: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()


class Proxy:
    """What one Envoy should have, has, and has refused."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.frozen = False
        self.feeds: dict[str, _Feed] = {}
        self._listeners_due: tuple[str, bytes] | None = None

    def feed(self, name: str) -> _Feed:
        return self.feeds.setdefault(name, _Feed())

    def restart(self) -> None:
        """A new Envoy process begins with nothing."""
        for feed in self.feeds.values():
            feed.sent = feed.accepted = feed.rejected = ""

    def put(self, name: str, version: str, body: bytes) -> None:
        """Make this the current version of a feed, and answer who waits for it."""
        feed = self.feed(name)
        if self.frozen or feed.version == version:
            return
        feed.version, feed.body = version, body
        feed.wake()

    def put_pair(self, clusters: tuple[str, bytes], listeners: tuple[str, bytes]) -> None:
        """Clusters, then listeners once these clusters are accepted."""
        if self.frozen:
            return
        ahead = self.feed(CLUSTERS)
        waits = ahead.version != clusters[0] and self.feed(LISTENERS).sent != ""
        self.put(CLUSTERS, *clusters)
        if waits and self.feed(LISTENERS).version != listeners[0]:
            self._listeners_due = listeners
            asyncio.get_running_loop().call_later(CLUSTERS_FIRST_S, self.release, listeners)
        else:
            self._listeners_due = None
            self.put(LISTENERS, *listeners)

    def release(self, due: tuple[str, bytes] | None = None) -> None:
        if self._listeners_due is not None and due in (None, self._listeners_due):
            ready, self._listeners_due = self._listeners_due, None
            self.put(LISTENERS, *ready)

    @property
    def current(self) -> bool:
        """Whether this Envoy has accepted the newest clusters and listeners."""
        return self._listeners_due is None and all(
            feed.accepted == feed.version for name, feed in self.feeds.items() if name in (CLUSTERS, LISTENERS))


class Xds:
    """The server. `proxies` is keyed by Envoy's node id; `accepted` is called when an Envoy has taken clusters or listeners."""

    def __init__(self) -> None:
        self.proxies: dict[str, Proxy] = {}
        self.accepted: Callable[[], None] = lambda: None
        self._server: asyncio.AbstractServer | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._connection, path)
        os.chmod(path, 0o600)

    def proxy(self, node_id: str) -> Proxy:
        return self.proxies.setdefault(node_id, Proxy(node_id))

    def forget(self, node_id: str) -> None:
        proxy = self.proxies.pop(node_id, None)
        for feed in proxy.feeds.values() if proxy else ():
            feed.wake()

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for writer in self._open:
            writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
                length = int(fields.get("content-length", "0"))
                if length > _LONGEST_REQUEST:
                    return
                request = msgspec.json.decode(await reader.readexactly(length), type=_Request)
                kind = lines[0].split(" ")[1].rpartition(":")[2]
                body = await self._answer(kind, request)
                status = b"200 OK" if body else b"304 Not Modified"
                writer.write(b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, ValueError, msgspec.MsgspecError):
            pass  # an Envoy that has ended, or speaks no HTTP
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, kind: str, request: _Request) -> bytes:
        """The body to send, b"" when nothing changed for POLL_S."""
        proxy = self.proxies.get(request.node.id)
        if proxy is None:
            await asyncio.sleep(1)  # a pod that is going: its Envoy will end soon
            return b""
        secret = kind == SECRETS
        feed = proxy.feed(request.resource_names[0] if secret and request.resource_names else kind)
        held = request.version_info
        if held and held == feed.version:
            feed.accepted, feed.rejected = held, ""
            self.accepted()
            if kind == CLUSTERS:
                proxy.release()
        elif feed.sent == feed.version and feed.version and not (secret and not held):
            feed.rejected = feed.version
        else:
            return self._send(feed)
        if not await self._changed(feed):
            return b""
        return self._send(feed)

    def _send(self, feed: _Feed) -> bytes:
        if not feed.version:
            return b""
        feed.sent = feed.version
        return feed.body

    async def _changed(self, feed: _Feed) -> bool:
        future = asyncio.get_running_loop().create_future()
        feed.waiting.append(future)
        try:
            await asyncio.wait_for(future, POLL_S)
        except TimeoutError:
            return False
        return True


def resource(type_url: str, item: dict[str, Any]) -> bytes:
    """One resource as it stands in a response."""
    return msgspec.json.encode({"@type": type_url, **item})


def body(version: str, type_url: str, resources: Iterable[bytes]) -> bytes:
    """A discovery response."""
    return b'{"version_info":%b,"type_url":%b,"resources":[%b]}' % (msgspec.json.encode(version), msgspec.json.encode(type_url), b",".join(resources))

"""Serves Envoys their configuration: REST discovery over one unix socket, by long poll, so that a change arrives at once. Endpoints go by
the same socket, in a stream (see ads.py).

Laws (all measured on Envoy 1.40):
  1. A request whose version is the current one waits for the next; after POLL_S it is answered 304.
  2. A request with another version, when the current one has been sent to that Envoy, is a rejection: REST carries no error text. It
     waits for the next version instead of being sent the same again.
  3. Listeners and routes that come with new clusters wait until the clusters and their endpoints are accepted.
  4. A frozen proxy (a test's wish) is answered nothing new; a delay holds every push back.
"""
import asyncio
import os
from collections.abc import Callable

import msgspec

from meshtls.lab import istio
from meshtls.lab.istio import Answer, Configuration
from meshtls.lab.node import ads

CLUSTERS, LISTENERS, ROUTES, SECRETS = "clusters", "listeners", "routes", "secrets"
POLL_S, CLUSTERS_FIRST_S = 50.0, 1.0
_LONGEST_REQUEST = 1 << 22
_NAMED = frozenset({ROUTES, SECRETS})


class _Node(msgspec.Struct):
    id: str = ""


class _Request(msgspec.Struct):
    version_info: str = ""
    node: _Node = msgspec.field(default_factory=_Node)
    resource_names: list[str] = []


class _Feed:
    """One kind of resource (of routes and secrets: one resource) for one Envoy."""

    __slots__ = ("version", "resources", "url", "sent", "accepted", "rejected", "waiting")

    def __init__(self) -> None:
        self.version = self.sent = self.accepted = self.rejected = self.url = ""
        self.resources: tuple[bytes, ...] = ()
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def body(self) -> bytes:
        """A discovery response."""
        version, url = msgspec.json.encode(self.version), msgspec.json.encode(self.url)
        return b'{"version_info":%b,"type_url":%b,"resources":[%b]}' % (version, url, b",".join(self.resources))

    def put(self, answer: Answer, url: str) -> None:
        """Make this the current version, and answer who waits for it."""
        if self.version != answer.version:
            self.version, self.resources, self.url = answer.version, answer.resources, url
            self.wake()

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
        self.listening = asyncio.Event()
        self.feeds: dict[str, _Feed] = {}
        self.endpoints: ads.Named = {}
        self.stream: ads.Stream | None = None
        self._due: Configuration | None = None

    def feed(self, name: str) -> _Feed:
        """By kind; routes and secrets by kind/name."""
        return self.feeds.setdefault(name, _Feed())

    @property
    def configured(self) -> bool:
        return self.feed(CLUSTERS).version != ""

    def restart(self) -> None:
        """A new Envoy process begins with nothing."""
        for feed in self.feeds.values():
            feed.sent = feed.accepted = feed.rejected = ""
        self.stream = None
        self.listening.clear()

    def put(self, found: Configuration) -> None:
        """Clusters and their endpoints, then what uses them once these are accepted."""
        if self.frozen:
            return
        ahead = self.feed(CLUSTERS)
        waits = ahead.version != found.clusters.version and self.feed(LISTENERS).sent != ""
        self.endpoints = found.endpoints
        ahead.put(found.clusters, istio.TYPE_CLUSTER)
        if self.stream:
            self.stream.update()
        self._due = found
        if waits:
            asyncio.get_running_loop().call_later(CLUSTERS_FIRST_S, self._release, found)
        else:
            self._release(found)

    def _release(self, due: Configuration) -> None:
        if self._due is not due:
            return
        self._due = None
        self.feed(LISTENERS).put(due.listeners, istio.TYPE_LISTENER)
        for name, table in due.routes.items():
            self.feed(f"{ROUTES}/{name}").put(table, istio.TYPE_ROUTE)
        for name in [n for n in self.feeds if n.startswith(f"{ROUTES}/") and n.partition("/")[2] not in due.routes]:
            self.feeds.pop(name).wake()

    def review(self) -> None:
        """Something was accepted."""
        if self._due is not None and self._has_clusters:
            self._release(self._due)

    @property
    def _has_clusters(self) -> bool:
        feed = self.feed(CLUSTERS)
        return feed.accepted == feed.version and (self.stream.subscription.settled(self.endpoints) if self.stream else not self.endpoints)

    @property
    def current(self) -> bool:
        """Whether this Envoy has accepted all of the newest configuration."""
        return self.configured and self._due is None and self._has_clusters and all(
            feed.accepted == feed.version for name, feed in self.feeds.items() if not name.startswith(SECRETS))


class Xds:
    """The server. `proxies` is keyed by Envoy's node id; `accepted` is called when an Envoy has taken something, `asked` when one asks for
    what is not known."""

    def __init__(self) -> None:
        self.proxies: dict[str, Proxy] = {}
        self.accepted: Callable[[], None] = lambda: None
        self.asked: Callable[[Proxy], None] = lambda _: None
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
                if head == ads.PREFACE:
                    return await ads.Stream(writer).serve(reader, self._join)
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

    def _join(self, stream: ads.Stream, node_id: str) -> None:
        proxy = self.proxies.get(node_id)
        if proxy is not None:
            proxy.stream, stream.current = stream, lambda: proxy.endpoints
            stream.taken = lambda: self._taken(proxy)

    def _taken(self, proxy: Proxy) -> None:
        proxy.review()
        self.accepted()

    async def _answer(self, kind: str, request: _Request) -> bytes:
        """The body to send, b"" when nothing changed for POLL_S."""
        proxy = self.proxies.get(request.node.id)
        if proxy is None:
            await asyncio.sleep(1)  # a pod that is going: its Envoy will end soon
            return b""
        feed = proxy.feed(f"{kind}/{request.resource_names[0]}" if kind in _NAMED and request.resource_names else kind)
        held = request.version_info
        if held and held == feed.version:
            feed.accepted, feed.rejected = held, ""
            if kind == LISTENERS:
                proxy.listening.set()
            self._taken(proxy)
        elif not feed.version:
            self.asked(proxy)
        elif feed.sent == feed.version and (held or kind not in _NAMED):
            feed.rejected = feed.version
        else:
            return self._send(proxy, kind, feed)
        return self._send(proxy, kind, feed) if await self._changed(feed) else b""

    def _send(self, proxy: Proxy, kind: str, feed: _Feed) -> bytes:
        if not feed.version:
            return b""
        feed.sent = feed.version
        if kind == CLUSTERS and proxy.stream:
            proxy.stream.subscription.owed = True
        return feed.body

    async def _changed(self, feed: _Feed) -> bool:
        future = asyncio.get_running_loop().create_future()
        feed.waiting.append(future)
        try:
            await asyncio.wait_for(future, POLL_S)
        except TimeoutError:
            return False
        return True

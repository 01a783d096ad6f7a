"""Serves Envoys their configuration: REST discovery over one unix socket, by long poll, so that a change arrives at once. Endpoints go by
the same socket, in a stream (see ads.py).

Laws (all measured on Envoy 1.40):
  1. A request whose version is the current one waits for the next; after POLL_S it is answered 304.
  2. A request with another version, when the current one has been sent to that Envoy, is a rejection: REST carries no error text. It
     waits for the next version instead of being sent the same again.
  3. Changed listeners and routes wait until the clusters that came with them and their endpoints are accepted.
  4. A frozen proxy (a test's wish) is answered nothing new; a delay holds every push back.
"""
import asyncio
import contextlib
import datetime
import os
from collections.abc import Callable

import msgspec

from meshtls.lab import istio
from meshtls.lab.istio import Answer, Configuration
from meshtls.lab.node import ads, http1

CLUSTERS, LISTENERS, ROUTES, SECRETS = "clusters", "listeners", "routes", "secrets"
POLL_S, CLUSTERS_FIRST_S = 50.0, 1.0
_TYPES = {CLUSTERS: istio.TYPE_CLUSTER, LISTENERS: istio.TYPE_LISTENER, ROUTES: istio.TYPE_ROUTE, SECRETS: istio.TYPE_SECRET}
_NAMED = frozenset({ROUTES, SECRETS})


class _Node(msgspec.Struct):
    id: str = ""


class _Request(msgspec.Struct):
    version_info: str = ""
    node: _Node = msgspec.field(default_factory=_Node)
    resource_names: list[str] = []


class _Feed:
    """One kind of resource (of routes and secrets: one resource) for one Envoy: what is due to it, what it was sent, what it has."""

    __slots__ = ("version", "sent", "accepted", "news", "_resources")

    def __init__(self) -> None:
        self.version = self.sent = self.accepted = ""
        self.news = asyncio.Event()
        self._resources: tuple[bytes, ...] = ()

    def body(self, kind: str) -> bytes:
        """A discovery response."""
        version, url = msgspec.json.encode(self.version), msgspec.json.encode(_TYPES[kind])
        return b'{"version_info":%b,"type_url":%b,"resources":[%b]}' % (version, url, b",".join(self._resources))

    def put(self, answer: Answer) -> None:
        """Make this the current version, and answer who waits for it."""
        if self.version != answer.version:
            self.version, self._resources = answer.version, answer.resources
            self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Proxy:
    """What one Envoy should have, and has. `pod` is its pod's namespace and name."""

    def __init__(self, node_id: str, pod: tuple[str, str]) -> None:
        self.node_id, self.pod = node_id, pod
        self.frozen = False
        self.certified = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self.listening = asyncio.Event()
        self.feeds: dict[str, _Feed] = {}
        self.endpoints: ads.Named = {}
        self.stream: ads.Stream | None = None
        self.news = asyncio.Event()

    def feed(self, name: str) -> _Feed:
        """By kind; routes and secrets by kind/name."""
        return self.feeds.setdefault(name, _Feed())

    @property
    def configured(self) -> bool:
        return self.feed(CLUSTERS).version != ""

    def restart(self) -> None:
        """A new Envoy process begins with nothing."""
        for feed in self.feeds.values():
            feed.sent = feed.accepted = ""
        self.stream = None
        self.listening.clear()

    def put(self, found: Configuration) -> None:
        """The newest configuration."""
        self.feed(CLUSTERS).put(found.clusters)
        self.endpoints = found.endpoints
        if self.stream:
            self.stream.update(self.endpoints)
        self.feed(LISTENERS).put(found.listeners)
        tables = {f"{ROUTES}/{name}": table for name, table in found.routes.items()}
        for name, table in tables.items():
            self.feed(name).put(table)
        for name in [name for name in self.feeds if name.startswith(ROUTES) and name not in tables]:
            self.feeds.pop(name).wake()

    def heard(self) -> None:
        """It has accepted something."""
        self.news.set()
        self.news = asyncio.Event()

    async def ready_for_more(self) -> None:
        """Until the newest clusters and their endpoints are accepted, or for CLUSTERS_FIRST_S: they may be refused."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLUSTERS_FIRST_S):
                while not self._has_clusters:
                    await self.news.wait()

    @property
    def _has_clusters(self) -> bool:
        feed = self.feed(CLUSTERS)
        return feed.accepted == feed.version and (self.stream.subscription.settled(self.endpoints) if self.stream else not self.endpoints)

    @property
    def current(self) -> bool:
        """Whether this Envoy has accepted all of the newest configuration."""
        return self.configured and self._has_clusters and all(
            feed.accepted == feed.version for name, feed in self.feeds.items() if not name.startswith(SECRETS))


class Xds:
    """The server. `proxies` is keyed by Envoy's node id; `accepted` is called when an Envoy has taken something, `asked` when one asks for
    what is not known."""

    def __init__(self) -> None:
        self.proxies: dict[str, Proxy] = {}
        self.accepted: Callable[[], None] = lambda: None
        self.asked: Callable[[Proxy], None] = lambda _: None

    async def serve(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._connection, path)
        os.chmod(path, 0o600)

    def proxy(self, node_id: str, pod: tuple[str, str]) -> Proxy:
        return self.proxies.setdefault(node_id, Proxy(node_id, pod))

    def forget(self, node_id: str) -> None:
        proxy = self.proxies.pop(node_id, None)
        for feed in proxy.feeds.values() if proxy else ():
            feed.wake()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if head == ads.PREFACE:
                await ads.Stream(self, writer).serve(reader)
            else:
                await http1.answer(reader, writer, self._answer, kind="application/json", head=head)

    def taken(self, proxy: Proxy) -> None:
        """An Envoy has accepted something."""
        proxy.heard()
        self.accepted()

    async def _answer(self, _: str, path: str, body: bytes) -> http1.Answer:
        """A discovery response, or 304 when nothing changed for POLL_S."""
        request, kind = msgspec.json.decode(body, type=_Request), path.rpartition(":")[2]
        proxy = self.proxies.get(request.node.id)
        if proxy is None:
            await asyncio.sleep(1)  # a pod that is going: its Envoy will end soon
            return 304, b""
        feed = proxy.feed(f"{kind}/{request.resource_names[0]}" if kind in _NAMED and request.resource_names else kind)
        held, newest = request.version_info, feed.version
        if not newest:
            self.asked(proxy)
        elif held == newest:
            feed.accepted = held
            if kind == LISTENERS:
                proxy.listening.set()
            self.taken(proxy)
        if held == newest or (feed.sent == newest and (held or kind not in _NAMED)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(feed.news.wait(), POLL_S)
            if feed.version == newest:
                return 304, b""
        if held and kind in (LISTENERS, ROUTES):
            await proxy.ready_for_more()
        feed.sent = feed.version
        if kind == CLUSTERS and proxy.stream:
            proxy.stream.subscription.owed = True
        return 200, feed.body(kind)

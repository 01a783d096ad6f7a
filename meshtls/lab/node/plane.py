"""The lab's control plane: when objects change, each proxy gets the configuration that Istio's translation makes of them now.

Configuration (policies, rules, Telemetry) is pushed at once, in the same turn of the event loop. What comes in crowds (pods, Services,
endpoints) is pushed after QUIET_S without more of it, at the latest after CROWD_S (both grow with the number of proxies), and takes at most a fifth of
the time in a large mesh; istiod does the same with longer times. Also hands out certificates, and renews them at half of their life.

Whether every proxy has accepted the newest configuration stands in the annotation `lab.meshtls.dev/proxies` of the first node: "current"
or "pending".

For tests of convergence: the pod annotation `lab.meshtls.dev/frozen: "true"` keeps a proxy on what it has; the annotation
`lab.meshtls.dev/push-delay: "3s"` on ConfigMap istio-system/istio makes the whole control plane slow; a change of the pod annotation
`lab.meshtls.dev/rotate` gives the pod a new certificate.
"""
import asyncio
import datetime
import re
from collections.abc import Callable
from typing import Any

import msgspec

from meshtls.lab import istio
from meshtls.lab.api.store import Event, Store
from meshtls.lab.istio.objects import ROOT, namespace_of
from meshtls.lab.istio.world import RESOURCES
from meshtls.lab.node import xds
from meshtls.lab.node.ca import LIFE, Authority
from meshtls.lab.node.xds import Proxy, Xds

Obj = dict[str, Any]
Fit = Callable[[Obj, istio.Configuration], istio.Configuration]
"""(pod, its proxy's configuration) -> the same for the pod's kind of network."""
FROZEN, DELAY, ROTATE = "lab.meshtls.dev/frozen", "lab.meshtls.dev/push-delay", "lab.meshtls.dev/rotate"
PROXIES, CURRENT, PENDING = "lab.meshtls.dev/proxies", "current", "pending"
QUIET_S, CROWD_S = 0.05, 0.5
QUIET_EACH_S, CROWD_EACH_S = 0.008, 0.04
_WATCHED = frozenset(RESOURCES.values())
_MEMBERS = frozenset({"pods", "endpointslices.discovery.k8s.io"})
_CROWDS = _MEMBERS | {"services"}
_RENEWAL_CHECK_S, _REVIEW_S, _WELCOME_S = 60.0, 0.01, 0.01


def _annotations(obj: Obj | None) -> dict[str, str]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def _matters(event: Event) -> bool:
    """Whether a write can change any proxy's configuration."""
    if event.resource == "configmaps":
        return namespace_of(event.object) == ROOT
    if event.resource != "pods" or event.old is None or event.type != "MODIFIED":
        return event.resource in _WATCHED
    return _told(event.old) != _told(event.object)


def _told(pod: Obj) -> tuple[Any, ...]:
    """What of a pod proxies are told, and whether it is ready: its endpoints follow in a moment, and until then proxies are not current."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    return pod["spec"], metadata.get("labels"), metadata.get("annotations") or {}, status.get("podIP"), ready


class Plane:
    """Keeps `xds` fed from `store`."""

    def __init__(self, store: Store, authority: Authority, server: Xds, node: str, fit: Fit = lambda pod, found: found) -> None:
        self.authority, self._node, self._fit = authority, node, fit
        self._store, self._xds = store, server
        self._world: istio.World | None = None
        self._pushed: istio.World | None = None
        self._mesh: Obj | None = None
        self._settings = 0  # counts the changes to anything but pods and endpoints
        self._kept: istio.Kept = {}
        self._pushing: asyncio.TimerHandle | None = None
        self._latest = self._took = self._ended = 0.0
        self._told = ""
        self._asking: asyncio.TimerHandle | None = None
        self._asked: set[str] = set()
        self._welcoming: asyncio.TimerHandle | None = None
        server.accepted, server.asked = self._review, self._welcome
        self._renewal = asyncio.get_running_loop().create_task(self._renew())
        self._unsubscribe = store.subscribe(self._hear)

    @property
    def world(self) -> istio.World:
        """The store as Istio sees it, as of now."""
        if self._world is None:
            lists = {resource: self._store.list(resource) for resource in _WATCHED}
            self._world = istio.World(lists, settings=self._settings, last=self._mesh)
            self._mesh = self._world.mesh
        return self._world

    def _hear(self, event: Event) -> None:
        if not _matters(event):
            return
        self._world = None
        self._settings += event.resource not in _MEMBERS
        if event.resource == "pods" and event.type == "MODIFIED" and _annotations(event.old).get(ROTATE) != _annotations(event.object).get(ROTATE):
            self.certify(event.object)
        if self._xds.proxies:
            self._schedule(event.resource in _CROWDS)

    def again(self) -> None:
        """What `fit` makes of a configuration has changed."""
        self._schedule(True)

    def _schedule(self, crowd: bool) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._pushing is None:
            self._latest = now + (CROWD_S + len(self._xds.proxies) * CROWD_EACH_S if crowd else 0)
        elif not crowd:
            self._latest = now
        when = min(now + QUIET_S + len(self._xds.proxies) * QUIET_EACH_S, self._latest) if crowd else now
        when = max(when, self._ended + 4 * self._took) if crowd else when
        if self._pushing is not None:
            when = when if crowd and self._latest > now else min(when, self._pushing.when())
            self._pushing.cancel()
        self._pushing = loop.call_at(when + self._delay_s(), self._push)
        if self._told != PENDING:
            self._tell()  # in the same turn: who sees the change sees that proxies do not follow it yet

    def _delay_s(self) -> float:
        found = re.fullmatch(r"([0-9.]+)(ms|s)", _annotations(self._store.get("configmaps", ROOT, "istio")).get(DELAY, "0s"))
        return float(found[1]) / (1000 if found[2] == "ms" else 1) if found else 0.0

    def _push(self) -> None:
        loop, self._pushing = asyncio.get_running_loop(), None
        begun, world = loop.time(), self.world
        self._pushed = world
        for pod, proxy in self._meshed():
            if proxy.configured:
                self._configure(world, pod, proxy)
        self._ended = loop.time()
        self._took = self._ended - begun
        self._review()

    def _meshed(self) -> list[tuple[Obj, Proxy]]:
        found = [(self._store.get("pods", *proxy.pod), proxy) for proxy in self._xds.proxies.values()]
        return [(pod, proxy) for pod, proxy in found if pod is not None]

    def _configure(self, world: istio.World, pod: Obj, proxy: Proxy) -> None:
        proxy.frozen = proxy.configured and _annotations(pod).get(FROZEN) == "true"
        if not proxy.frozen:
            proxy.put(self._fit(pod, istio.configuration(world, pod, self._kept)))

    def _review(self) -> None:
        """Look soon whether all proxies are current, and say so when that has changed."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().call_later(_REVIEW_S, self._tell)

    def _tell(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = None
        behind = any(not (proxy.current or proxy.frozen) for proxy in self._xds.proxies.values())
        said = PENDING if self._pushing is not None or behind else CURRENT
        if said != self._told and self._store.mutate("nodes", "", self._node, lambda node: node["metadata"].setdefault(
                "annotations", {}).update({PROXIES: said})) is not None:
            self._told = said

    def add(self, pod: Obj) -> Proxy:
        """A pod with an address is about to have an Envoy, its first or another."""
        proxy = self._xds.proxy(istio.node_id(pod), (pod["metadata"]["namespace"], pod["metadata"]["name"]))
        self.certify(pod)
        proxy.restart()
        return proxy

    def _welcome(self, proxy: Proxy) -> None:
        """An Envoy asks for its first configuration: those that ask together share the work."""
        self._asked.add(proxy.node_id)
        if self._welcoming is None:
            self._welcoming = asyncio.get_running_loop().call_later(_WELCOME_S, self._give)

    def _give(self) -> None:
        """Of pods and endpoints they learn what the others know, where a push of the news is due anyway."""
        self._welcoming = None
        known = self._pushed
        world = known if known is not None and known.settings == self._settings and self._pushing is not None else self.world
        self._pushed = world
        for pod, proxy in self._meshed():
            if proxy.node_id in self._asked and not proxy.configured:
                self._configure(world, pod, proxy)
        self._asked.clear()

    def remove(self, pod: Obj) -> None:
        """The pod's Envoy, if it had one, is gone."""
        self._xds.forget(istio.node_id(pod))
        self._kept.pop(pod["metadata"]["uid"], None)
        self._review()

    def certify(self, pod: Obj) -> None:
        """Give the pod's proxy a new certificate; nothing to do for a pod without one."""
        proxy, now = self._xds.proxies.get(istio.node_id(pod)), datetime.datetime.now(datetime.UTC)
        if proxy is None:
            return
        proxy.certified = now
        chain, private = self.authority.issue(self.world.account(pod), now)
        for name, version, secret in (
                ("default", f"{now.timestamp():.6f}", {"tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": private}}}),
                ("ROOTCA", "root", {"validation_context": {"trusted_ca": {"inline_string": self.authority.root_pem}}})):
            resource = msgspec.json.encode({"@type": istio.TYPE_SECRET, "name": name, **secret})
            proxy.feed(f"{xds.SECRETS}/{name}").put(istio.Answer(version, (resource,)))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_CHECK_S)
            for pod, proxy in self._meshed():
                if datetime.datetime.now(datetime.UTC) - proxy.certified > LIFE / 2:
                    self.certify(pod)

    def close(self) -> None:
        self._unsubscribe()
        self._renewal.cancel()
        for timer in (self._pushing, self._asking, self._welcoming):
            if timer is not None:
                timer.cancel()

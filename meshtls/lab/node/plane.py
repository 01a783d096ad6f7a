"""The lab's control plane: when objects change, each proxy gets the configuration that Istio's translation makes of them now.

A push follows a change at once, in the same turn of the event loop; in a large mesh, where a push takes long, pushes are spaced so that
they take at most half of the time. Also hands out certificates, and renews them at half of their life.

For tests of convergence: the pod annotation `lab.meshtls.dev/frozen: "true"` keeps a proxy on what it has; the annotation
`lab.meshtls.dev/push-delay: "3s"` on ConfigMap istio-system/istio makes the whole control plane slow; a change of the pod annotation
`lab.meshtls.dev/rotate` gives the pod a new certificate.
"""
import asyncio
import datetime
import re
from typing import Any

from meshtls.lab import istio
from meshtls.lab.api.store import Event, Store
from meshtls.lab.istio.world import RESOURCES, ROOT
from meshtls.lab.node import xds
from meshtls.lab.node.ca import LIFE, Authority
from meshtls.lab.node.xds import Proxy, Xds

Obj = dict[str, Any]
FROZEN, DELAY, ROTATE = "lab.meshtls.dev/frozen", "lab.meshtls.dev/push-delay", "lab.meshtls.dev/rotate"
_WATCHED = frozenset(RESOURCES.values())
_RENEWAL_CHECK_S = 60.0


def _annotations(obj: Obj | None) -> dict[str, str]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def _matters(event: Event) -> bool:
    """Whether a write can change any proxy's configuration."""
    if event.resource not in _WATCHED:
        return False
    metadata = event.object["metadata"]
    if event.resource == "configmaps":
        return metadata.get("namespace") == ROOT
    if event.resource != "pods" or event.old is None or event.type != "MODIFIED":
        return True
    old, new = event.old, event.object
    return (old["spec"] != new["spec"] or old["metadata"].get("labels") != metadata.get("labels")
            or _annotations(old) != _annotations(new)
            or (old.get("status") or {}).get("podIP") != (new.get("status") or {}).get("podIP"))


class Plane:
    """Keeps `xds` fed from `store`."""

    def __init__(self, store: Store, authority: Authority, server: Xds) -> None:
        self.authority = authority
        self._store, self._xds = store, server
        self._pods: dict[tuple[str, str], tuple[Proxy, datetime.datetime]] = {}
        self._world: istio.World | None = None
        self._pushing: asyncio.TimerHandle | asyncio.Handle | None = None
        self._earliest = 0.0
        self._renewal = asyncio.get_running_loop().create_task(self._renew())
        self._unsubscribe = store.subscribe(self._hear)

    @property
    def world(self) -> istio.World:
        """The store as Istio sees it, as of now."""
        if self._world is None:
            self._world = istio.World({resource: self._store.list(resource) for resource in _WATCHED})
        return self._world

    def _hear(self, event: Event) -> None:
        if not _matters(event):
            return
        self._world = None
        if event.resource == "pods" and event.type == "MODIFIED" and _annotations(event.old).get(ROTATE) != _annotations(event.object).get(ROTATE):
            self.certify(event.object)
        if self._pushing is None and self._pods:
            loop = asyncio.get_running_loop()
            wait = max(self._earliest - loop.time(), self._delay_s())
            self._pushing = loop.call_later(wait, self._push) if wait > 0 else loop.call_soon(self._push)

    def _delay_s(self) -> float:
        found = re.fullmatch(r"([0-9.]+)(ms|s)", _annotations(self._store.get("configmaps", ROOT, "istio")).get(DELAY, "0s"))
        return float(found[1]) / (1000 if found[2] == "ms" else 1) if found else 0.0

    def _push(self) -> None:
        loop, self._pushing = asyncio.get_running_loop(), None
        begun, world = loop.time(), self.world
        for (namespace, name), (proxy, _) in list(self._pods.items()):
            pod = self._store.get("pods", namespace, name)
            if pod is not None:
                self._configure(world, pod, proxy)
        self._earliest = loop.time() + (loop.time() - begun) * (1 if loop.time() - begun > 0.02 else 0)

    def _configure(self, world: istio.World, pod: Obj, proxy: Proxy) -> None:
        proxy.frozen = False if not proxy.feeds else _annotations(pod).get(FROZEN) == "true" and proxy.feed(xds.LISTENERS).version != ""
        if proxy.frozen:
            return
        clusters, listeners = istio.clusters(world, pod), istio.listeners(world, pod)
        pair = [(found.version, b"" if proxy.feed(kind).version == found.version else xds.body(found.version, url, found.items))
                for kind, url, found in ((xds.CLUSTERS, istio.TYPE_CLUSTER, clusters), (xds.LISTENERS, istio.TYPE_LISTENER, listeners))]
        proxy.put_pair(pair[0], pair[1])

    def add(self, pod: Obj) -> Proxy:
        """A pod with an address is about to have an Envoy."""
        proxy = self._xds.proxy(istio.node_id(pod))
        metadata = pod["metadata"]
        self._pods[metadata["namespace"], metadata["name"]] = (proxy, datetime.datetime.now(datetime.UTC))
        self.certify(pod)
        self._configure(self.world, pod, proxy)
        return proxy

    def remove(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        found = self._pods.pop((metadata["namespace"], metadata["name"]), None)
        if found:
            self._xds.forget(found[0].node_id)

    def certify(self, pod: Obj) -> None:
        """Give the pod's proxy a new certificate; nothing to do for a pod without one."""
        metadata, now = pod["metadata"], datetime.datetime.now(datetime.UTC)
        key = metadata["namespace"], metadata["name"]
        if key not in self._pods:
            return
        proxy = self._pods[key][0]
        self._pods[key] = (proxy, now)
        account = pod["spec"].get("serviceAccountName") or "default"
        chain, private = self.authority.issue(self.authority.identity(metadata["namespace"], account), now)
        secrets = {"default": {"tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": private}}},
                   "ROOTCA": {"validation_context": {"trusted_ca": {"inline_string": self.authority.root_pem}}}}
        for name, secret in secrets.items():
            version = f"{now.timestamp():.6f}" if name == "default" else "root"
            proxy.put(name, version, xds.body(version, istio.TYPE_SECRET, [{"name": name, **secret}]))

    def behind(self) -> list[str]:
        """Node ids of the proxies that have not accepted the newest configuration."""
        return [proxy.node_id for proxy, _ in self._pods.values() if not proxy.current]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_CHECK_S)
            now = datetime.datetime.now(datetime.UTC)
            for (namespace, name), (_, issued) in list(self._pods.items()):
                pod = self._store.get("pods", namespace, name)
                if pod is not None and now - issued > LIFE / 2:
                    self.certify(pod)

    def close(self) -> None:
        self._unsubscribe()
        self._renewal.cancel()
        if self._pushing is not None:
            self._pushing.cancel()

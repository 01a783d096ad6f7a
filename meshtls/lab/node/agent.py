"""What pilot-agent serves in a meshed pod, served by the lab in the pod's own network: readiness, merged metrics, rewritten probes.

15021 /healthz/ready: whether Envoy is live; 15020 /stats/prometheus: Envoy's and the application's metrics, /app-health/...: the
application's own probes, asked from inside the pod, past the proxy; 15090 /stats/prometheus: Envoy's alone.
"""
import asyncio
import functools
import json
import socket
from collections.abc import Callable
from typing import Any

from meshtls.lab.istio import metrics
from meshtls.lab.node import http1, probes
from meshtls.lab.node.loopback import Loopback
from meshtls.lab.node.network import Network, PodNet

PROXY = "istio-proxy"
STATUS, READY, ENVOY = PORTS = (15020, 15021, 15090)
_PATIENCE_S, _IDLE_S = 5.0, 10.0


class Agent:
    """One pod's. `admin` is the path of Envoy's admin socket, `translate` makes Istio's metrics of Envoy's counters."""

    def __init__(self, pod: dict[str, Any], net: PodNet, network: Network | Loopback, admin: str, translate: Callable[[str], str]) -> None:
        spec = pod["spec"]
        self._containers = {c["name"]: c for c in [*spec["containers"], *(spec.get("initContainers") or [])]}
        env = {e["name"]: e.get("value") or "" for e in self._containers[PROXY].get("env") or []}
        self._probers: dict[str, Any] = json.loads(env.get("ISTIO_KUBE_APP_PROBERS") or "{}")
        self._scrape: dict[str, str] = json.loads(env.get("ISTIO_PROMETHEUS_ANNOTATIONS") or "{}")
        self._net, self._network, self._admin, self._translate = net, network, admin, translate
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for port in PORTS:
            sock = await self._network.listen(self._net, "0.0.0.0", port)
            answer = functools.partial(http1.answer, handler=functools.partial(self._answer, port), idle_s=_IDLE_S)
            self._servers.append(await asyncio.start_server(answer, sock=sock))

    def close(self) -> None:
        for server in self._servers:
            server.close()

    async def _answer(self, port: int, method: str, target: str, _: bytes) -> http1.Answer:
        path = target.partition("?")[0]
        if path == "/stats/prometheus":
            status, body = await self._metrics()
            return status, body + (b"" if port == ENVOY else await self._application())
        if path == "/healthz/ready" and port != ENVOY:
            status, _ = await self._ask(self._admin, "/ready")
            return (200, b"") if status == 200 else (503, b"Envoy proxy is NOT ready\n")
        if path in self._probers and port != ENVOY:
            return await self._probe(path)
        if path == "/quitquitquit" and method == "POST" and port != ENVOY:
            return await self._ask(self._admin, path, "POST")
        return 404, b"not found\n"

    async def _ask(self, address: tuple[str, int] | str, path: str, method: str = "GET", sock: socket.socket | None = None) -> http1.Answer:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await http1.get(address, path, method=method, sock=sock)
        except (http1.NoAnswer, TimeoutError) as error:
            return 503, f"{error}\n".encode()

    async def _metrics(self) -> http1.Answer:
        status, body = await self._ask(self._admin, "/stats/prometheus")
        if status != 200:
            return status, body
        _, counted = await self._ask(self._admin, metrics.QUERY)
        return status, body + self._translate(counted.decode(errors="replace")).encode()

    async def _application(self) -> bytes:
        if self._scrape.get("scrape") != "true":
            return b""
        port, path = int(self._scrape.get("port") or 80), self._scrape.get("path") or "/metrics"
        status, body = await self._ask((self._net.loop(port), port), path, sock=await self._network.client(self._net))
        return body if status == 200 else b""

    async def _probe(self, path: str) -> http1.Answer:
        wish, container = self._probers[path], self._containers.get(path.split("/")[2], {})
        at = self._net.at(probes.port_number(container, probes.action(wish)["port"]))
        try:
            async with asyncio.timeout(float(wish.get("timeoutSeconds") or 1)):
                return await probes.ask(wish, container, at, sock=await self._network.client(self._net)), b""
        except (http1.NoAnswer, TimeoutError) as error:
            return 500, f"{error}\n".encode()

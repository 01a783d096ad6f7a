"""What pilot-agent serves in a meshed pod, served by the lab in the pod's own network: readiness, merged metrics, rewritten probes.

15021 /healthz/ready: whether Envoy is live; 15020 /stats/prometheus: Envoy's and the application's metrics, /app-health/...: the
application's own probes, asked from inside the pod, past the proxy; 15090 /stats/prometheus: Envoy's alone.
"""
import asyncio
import json
from collections.abc import Callable
from typing import Any

from meshtls.lab.istio import metrics
from meshtls.lab.node import http1, probes
from meshtls.lab.node.network import Network, PodNet

PROXY = "istio-proxy"
PORTS = (15020, 15021, 15090)


class Agent:
    """One pod's. `admin` is the path of Envoy's admin socket, `translate` makes Istio's metrics of Envoy's counters."""

    def __init__(self, pod: dict[str, Any], net: PodNet, network: Network, admin: str,
                 translate: Callable[[str], str]) -> None:
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
            self._servers.append(await http1.serve(sock, self._proxy_only if port == 15090 else self._answer))

    def close(self) -> None:
        for server in self._servers:
            server.close()

    async def ready(self) -> bool:
        """Whether Envoy has its configuration and serves."""
        try:
            async with asyncio.timeout(2):
                status, _ = await http1.get(self._admin, "/ready")
        except (http1.NoAnswer, TimeoutError):
            return False
        return status == 200

    async def _proxy_only(self, method: str, path: str) -> http1.Answer:
        return await self._metrics() if path.startswith("/stats/prometheus") else (404, b"not found\n")

    async def _answer(self, method: str, path: str) -> http1.Answer:
        path, _, query = path.partition("?")
        if path == "/healthz/ready":
            return (200, b"") if await self.ready() else (503, b"Envoy proxy is NOT ready\n")
        if path == "/stats/prometheus":
            status, body = await self._metrics()
            return status, body + await self._application()
        if path in self._probers:
            return await self._probe(path)
        if path == "/quitquitquit" and method == "POST":
            return await self._ask("/quitquitquit", "POST")
        return 404, b"not found\n"

    async def _ask(self, path: str, method: str = "GET") -> http1.Answer:
        try:
            async with asyncio.timeout(5):
                return await http1.get(self._admin, path, method=method)
        except (http1.NoAnswer, TimeoutError) as error:
            return 503, f"{error}\n".encode()

    async def _metrics(self) -> http1.Answer:
        status, body = await self._ask("/stats/prometheus")
        if status != 200:
            return status, body
        _, counted = await self._ask(metrics.QUERY)
        return status, body + self._translate(counted.decode(errors="replace")).encode()

    async def _application(self) -> bytes:
        if self._scrape.get("scrape") != "true":
            return b""
        port, path = int(self._scrape.get("port") or 80), self._scrape.get("path") or "/metrics"
        try:
            async with asyncio.timeout(5):
                status, body = await http1.get((self._net.loop(port), port), path, sock=await self._network.client(self._net))
        except (http1.NoAnswer, TimeoutError):
            return b""
        return body if status == 200 else b""

    async def _probe(self, path: str) -> http1.Answer:
        wish = self._probers[path]
        container = self._containers.get(path.split("/")[2], {})
        kind = next(iter({"httpGet", "tcpSocket", "grpc"} & wish.keys()), "tcpSocket")
        action = wish[kind]
        port = probes.port_number(container, action["port"])
        address = (self._net.at(port), port)
        sock = await self._network.client(self._net)
        try:
            async with asyncio.timeout(float(wish.get("timeoutSeconds") or 1)):
                if kind != "httpGet":
                    success, why = await probes.opened(kind, action, address, sock)
                    return (200, b"") if success else (500, f"{why}\n".encode())
                target = "/" + str(action.get("path") or "/").lstrip("/")
                headers = {h["name"]: h["value"] for h in action.get("httpHeaders") or []}
                tls = probes.unverified() if action.get("scheme") == "HTTPS" else None
                status, _ = await http1.get(address, target, headers=headers, sock=sock, tls=tls)
                return status, b""
        except (http1.NoAnswer, OSError, TimeoutError) as error:
            sock.close()
            return 500, f"{error}\n".encode()

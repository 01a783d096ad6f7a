"""Probes as a kubelet makes them: from the node, a new connection each, so that an unrewritten one meets STRICT as in life.

Until a probe first succeeds it is asked more often than its period, so that pods are ready soon; failures still count once a period.
"""
import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from meshtls.lab.node import health, http1

Obj = dict[str, Any]
Result = tuple[bool, str]
Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""(command, seconds) -> (exit code, output). Raises TimeoutError."""
_SOONEST_S, _SLOWER = 0.03, 1.5


def port_number(container: Obj, port: Any) -> int:
    """A probe's port, by number or by the container's name for it; 0 if there is none."""
    if isinstance(port, int):
        return port
    if str(port).isdecimal():
        return int(port)
    return next((p["containerPort"] for p in container.get("ports") or [] if p.get("name") == port), 0)


async def attempt(probe: Obj, container: Obj, ip: str, run: Exec, source: str = "") -> Result:
    """Ask once, from the address `source` if given; (success, message as in the pod's events)."""
    limit = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(limit):
            if "exec" in probe:
                code, output = await run(probe["exec"].get("command") or [], limit)
                return code == 0, output[-1024:]
            if "httpGet" in probe:
                return await _http(probe["httpGet"], container, ip, source)
            kind = "tcpSocket" if "tcpSocket" in probe else "grpc"
            return await opened(kind, probe[kind], (probe[kind].get("host") or ip, port_number(container, probe[kind]["port"])), source=source)
    except TimeoutError:
        return False, f"command timed out after {limit:g}s" if "exec" in probe else "context deadline exceeded"


async def opened(kind: str, action: Obj, address: tuple[str, int], sock: socket.socket | None = None, source: str = "") -> Result:
    """A tcpSocket or grpc probe, through `sock` or from the address `source`."""
    try:
        reader, writer = await http1.connect(address, sock, source=source)
    except OSError as error:
        return False, f"dial tcp {address[0]}:{address[1]}: connect: {(error.strerror or str(error)).lower()}"
    try:
        why = await health.check(reader, writer, f"{address[0]}:{address[1]}", action.get("service") or "") if kind == "grpc" else ""
    except OSError as error:
        why = f"error: health rpc probe failed: {(error.strerror or str(error)).lower()}"
    finally:
        writer.close()
    return not why, why


async def _http(action: Obj, container: Obj, ip: str, source: str) -> Result:
    number, host = port_number(container, action["port"]), action.get("host") or ip
    path = "/" + str(action.get("path") or "/").lstrip("/")
    secure = action.get("scheme") == "HTTPS"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"} | {h["name"]: h["value"] for h in action.get("httpHeaders") or []}
    url = f"{'https' if secure else 'http'}://{host}:{number}{path}"
    try:
        status, _ = await http1.get((host, number), path, headers=headers, tls=unverified() if secure else None, largest=10_240, source=source)
    except http1.NoAnswer as error:
        return False, f'Get "{url}": {error}'
    return 200 <= status < 400, "" if status < 400 else f"HTTP probe failed with statuscode: {status}"


def unverified() -> ssl.SSLContext:
    """A probe asks whether anybody answers, not who."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


async def watch(probe: Obj, once: Callable[[], Awaitable[Result]], tell: Callable[[bool | None, str], None]) -> None:
    """Ask for ever. `tell(True, "")` from the success threshold on, `tell(False, why)` from the failure threshold on, None before it."""
    period = float(probe.get("periodSeconds") or 10)
    wanted, tolerated = int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3)
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    loop = asyncio.get_running_loop()
    good = bad = 0
    pause, ever = _SOONEST_S, False
    counted = loop.time() - period
    while True:
        success, message = await once()
        if success:
            good, bad, ever = good + 1, 0, ever or good + 1 >= wanted
            if good >= wanted:
                tell(True, "")
        elif ever or loop.time() - counted >= period:
            good, bad, counted = 0, bad + 1, loop.time()
            tell(False if bad >= tolerated else None, message)
        if ever:
            await asyncio.sleep(period)
        else:
            await asyncio.sleep(min(pause, period))
            pause *= _SLOWER


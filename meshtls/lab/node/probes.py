"""Probes as a kubelet makes them: from the node, a new connection each, so that an unrewritten one meets STRICT as in life.

Until a probe first succeeds it is asked more often than its period, so that pods are ready soon; failures still count once a period.
What cannot be asked (a command that does not exist) counts as neither success nor failure.
"""
import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from meshtls.lab.node import health, http1
from meshtls.lab.node.runtime import StartFailed

Obj = dict[str, Any]
Result = tuple[bool | None, str]
"""Success, failure or None where it could not be asked; and the words of the pod's events."""
Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""(command, seconds) -> (exit code, output). Raises TimeoutError, StartFailed."""
_SOONEST_S, _SLOWER = 0.03, 1.5


def port_number(container: Obj, port: Any) -> int:
    """A probe's port, by number or by the container's name for it; 0 if there is none."""
    if isinstance(port, int):
        return port
    if str(port).isdecimal():
        return int(port)
    return next((p["containerPort"] for p in container.get("ports") or [] if p.get("name") == port), 0)


def action(probe: Obj) -> Obj:
    """What an http, tcp or grpc probe asks."""
    return next(probe[kind] for kind in ("httpGet", "tcpSocket", "grpc") if kind in probe)


async def ask(probe: Obj, container: Obj, host: str, sock: socket.socket | None = None, source: str = "") -> int:
    """What an http action is answered; 200 for a tcp one that is connected and for a healthy grpc service. Raises NoAnswer."""
    wish = action(probe)
    address = (host, port_number(container, wish["port"]))
    if "httpGet" not in probe:
        reader, writer = await http1.connect(address, sock=sock, source=source)
        with contextlib.closing(writer):
            if "grpc" in probe:
                await health.check(reader, writer, f"{host}:{address[1]}", wish.get("service") or "")
        return 200
    path, scheme, tls = "/" + str(wish.get("path") or "/").lstrip("/"), str(wish.get("scheme") or "HTTP").lower(), None
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"} | {h["name"]: h["value"] for h in wish.get("httpHeaders") or []}
    if scheme == "https":
        tls = ssl.create_default_context()  # a probe asks whether anybody answers, not who
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    try:
        return (await http1.get(address, path, headers=headers, tls=tls, largest=10_240, sock=sock, source=source))[0]
    except http1.NoAnswer as error:
        raise http1.NoAnswer(f'Get "{scheme}://{host}:{address[1]}{path}": {error}') from error


async def attempt(probe: Obj, container: Obj, ip: str, run: Exec, source: str = "") -> Result:
    """Ask once, from the address `source` if given."""
    limit, runs = float(probe.get("timeoutSeconds") or 1), "exec" in probe
    command = probe["exec"].get("command") or [] if runs else []
    try:
        async with asyncio.timeout(limit):
            if runs:
                code, output = await run(command, limit)
                return code == 0, f"failed: {output[-1024:]}"
            status = await ask(probe, container, action(probe).get("host") or ip, source=source)
    except TimeoutError:
        return False, f'failed: command timed out: "{" ".join(command)}" timed out after {limit:g}s' if runs else "failed: context deadline exceeded"
    except StartFailed as error:
        return None, f"errored and resulted in unknown state: {error}"
    except http1.NoAnswer as error:
        return False, f"failed: {error}"
    return 200 <= status < 400, f"failed: HTTP probe failed with statuscode: {status}"


async def watch(probe: Obj, once: Callable[[], Awaitable[Result]]) -> AsyncIterator[tuple[bool | None, str]]:
    """Ask for ever. (True, "") from the success threshold on, (False, why) from the failure threshold on, (None, why) before it and where
    it could not be asked."""
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
                yield True, ""
        elif ever or loop.time() - counted >= period:
            counted = loop.time()
            good, bad = (0, bad + 1) if success is False else (good, bad)
            yield False if success is False and bad >= tolerated else None, message
        await asyncio.sleep(period if ever else min(pause, period))
        pause *= _SLOWER

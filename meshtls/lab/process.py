"""The lab's process: one event loop with the API, the controllers, Istio's translation and the node.

Started in the background by `launch.py`, which hears one JSON line on the report pipe: {"ready": ...} or {"error", "hint"}. In order: take the API's
port on the host's loopback, leave for a world of namespaces, fork the runner, only then import what is heavy.
"""
import argparse
import asyncio
import json
import os
import shutil
import socket
import sys
from typing import Any

from meshtls.errors import LabError, MeshtlsError
from meshtls.lab import addresses, state
from meshtls.lab.node import linux, runner, world


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="meshtls.lab.process")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--owner", type=int, default=-1)
    parser.add_argument("--mode", default=state.NAMESPACES)
    parser.add_argument("--settings", default="{}")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    wish = _arguments(argv)
    try:
        _run(wish)
    except MeshtlsError as error:
        _report(wish.report, {"error": error.message, "hint": error.hint})
        raise SystemExit(1) from error
    except OSError as error:
        _report(wish.report, {"error": f"the lab did not start: {error}", "hint": "the lab's log says more"})
        raise


def _report(pipe: int, message: dict[str, Any]) -> None:
    os.write(pipe, json.dumps(message).encode() + b"\n")


def _run(wish: argparse.Namespace) -> None:
    folder = state.directory(wish.name)
    # asyncio switches Nagle's delay off for sockets that say they are TCP, else each answer takes 40 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", wish.port))
    except OSError as error:
        raise LabError(f"port {wish.port} of 127.0.0.1 cannot be taken: {error.strerror}", "choose another --port, or none for a free one") from error
    rootless = os.getuid() != 0
    alone = wish.mode == state.LOOPBACK
    if os.fork() if alone else world.enter():
        os._exit(0)
    claim = addresses.claim() if alone else None
    pid = os.getpid() if alone else int(os.readlink("/proc/self"))  # still the host's /proc, so the host's number
    added = claim.block if claim and claim.missing else 0
    found = state.State(name=wish.name, pid=pid, server="", mode=wish.mode, mark=os.environ[state.MARK], added=added)
    if alone:
        os.chdir(folder / "run")
    else:
        world.settle(str(folder / "run"))
    state.save(found)
    os.makedirs("pods", exist_ok=True)
    _, control = runner.start(isolated=not alone)
    from meshtls.lab.supervisor import Supervisor

    supervisor = Supervisor(folder, wish, control, listener, rootless, found, claim)
    try:
        if added:
            addresses.add(added)
        asyncio.run(supervisor.run(lambda message: _report(wish.report, message)))
    finally:
        if not alone:
            os.chdir("/")
            linux.umount(str(folder / "run"))
        for pid in state.marked(found.mark) if alone else ():
            state.kill(pid)  # what a runner that was killed has left
        if claim:
            claim.line.close()
            addresses.remove(added)
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The lab's side of the runner: start a process, hear when it ends, signal it. Also says which Python containers run."""
import asyncio
import json
import os
import signal
import site
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from meshtls.lab.node.runner import DEFAULT_CAPABILITIES

CAPABILITIES = tuple(DEFAULT_CAPABILITIES)
PATH = "/.lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Root(msgspec.Struct, frozen=True):
    """A container's root directory (see rootfs.py)."""

    python: tuple[str, str, tuple[str, ...]]
    files: dict[str, str] = {}
    mounts: tuple[tuple[str, str, bool], ...] = ()
    readonly: bool = False


class Spec(msgspec.Struct, frozen=True):
    """What to run. `root` None: in the lab's own file system (Envoy), without becoming anybody else; `paths` (what is written, where it is)
    then hold for arguments, variables and `cwd`."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str = "/"
    hostname: str = "localhost"
    root: Root | None = None
    paths: tuple[tuple[str, str], ...] = ()
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = CAPABILITIES
    marks: bool = False
    rootless: bool = False
    no_new_privileges: bool = False
    interpreter: str = ""


def host_python() -> tuple[str, str, tuple[str, ...]]:
    """The Python that containers run: its prefix, its executable, and the directories of packages installed into it, which are hidden:
    a Python image has none."""
    executable = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    packages = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    return os.path.realpath(sys.base_prefix), executable, tuple(sorted({os.path.realpath(path) for path in packages if os.path.isdir(path)}))


class StartFailed(Exception):
    """The program could not be executed; the message is the reason."""


class Process:
    """A running process. `output`, to be closed by who has started it, is where to read what it writes; `exit` resolves to its exit code:
    negative for a signal."""

    def __init__(self, runtime: "Runtime", number: int, output: int) -> None:
        self._runtime = runtime
        self.number, self.output = number, output
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        self._runtime.send({"kill": self.number, "signal": number}, [])


class Runtime:
    """Speaks to the runner. If the runner is gone, every process counts as killed, and `gone` is called."""

    def __init__(self, control: socket.socket, gone: Callable[[], None]) -> None:
        self._control, self._text, self._gone = control, b"", gone
        control.setblocking(False)
        self._running: dict[int, Process] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control, self._hear)

    async def start(self, spec: Spec, netns: int = -1, inside: Process | None = None) -> Process:
        """Start a process in a pod's network or inside a running container. Raises StartFailed."""
        self._next += 1
        output, writer = os.pipe()
        process = self._running[self._next] = Process(self, self._next, output)
        try:
            with os.fdopen(writer, "wb"):
                fds = [writer] + ([netns] if netns >= 0 else [])
                self.send({"id": process.number, "spec": spec, "fds": len(fds)} | ({"of": inside.number} if inside else {}), fds)
                await process.started
        except BaseException:
            process.signal(signal.SIGKILL)  # where nobody waits for it any more
            self._running.pop(process.number, None)
            os.close(output)
            raise
        return process

    def send(self, request: dict[str, Any], fds: list[int]) -> None:
        self._control.setblocking(True)  # the runner reads at once; a full socket buffer must not lose a request
        try:
            if fds:
                socket.send_fds(self._control, [b" "], fds)
            self._control.sendall(msgspec.json.encode(request) + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the runner is gone, which ends everything
        finally:
            self._control.setblocking(False)

    def _hear(self) -> None:
        while True:
            try:
                data = self._control.recv(1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._control)
                self._gone()
                for process in list(self._running.values()):
                    self._ended(process, -9)
                return
            *lines, self._text = (self._text + data).split(b"\n")
            for line in lines:
                self._answer(json.loads(line))

    def _answer(self, answer: dict[str, Any]) -> None:
        found = self._running.get(answer["id"])
        if found is None or (found.started.done() and "exit" not in answer):
            return
        if "failed" in answer:
            found.started.set_exception(StartFailed(answer["failed"]))
        elif "pid" in answer:
            found.started.set_result(None)
        else:
            self._ended(found, answer["exit"])

    def _ended(self, process: Process, status: int) -> None:
        self._running.pop(process.number, None)
        if not process.started.done():
            process.started.set_exception(StartFailed("the process ended before it ran its program"))
        if not process.exit.done():
            process.exit.set_result(status)

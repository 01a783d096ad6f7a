"""Where a lab lives on disk, and whether it lives: one private directory for each name.

    $XDG_RUNTIME_DIR/meshtls/lab/<name>/   (or $XDG_STATE_HOME, or ~/.local/state)
        state.json   kubeconfig   lab.log   api.crt ...   run/ (the mount point of the lab's own memory file system)

A lab is alive while the process with the recorded id has the recorded mark in its environment: ids are used again, marks are not.
"""
import base64
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import yaml

from meshtls.errors import InputError, LabError
from meshtls.lab import addresses

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
NAMESPACES, LOOPBACK = "namespaces", "loopback"
MARK = "MESHTLS_LAB"


class State(msgspec.Struct, frozen=True):
    """What is known of a lab from outside. `mark` is in the environment of its process, and of every process of a loopback lab, which no
    namespace ends with it; `added` is the block of addresses that it put on the loopback interface (0: none)."""

    name: str
    pid: int
    server: str
    mode: str
    mark: str
    added: int = 0


def base() -> Path:
    """The directory of all labs of this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "meshtls" / "lab"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "meshtls" / "lab"


def directory(name: str) -> Path:
    """A lab's directory, there or not. Raises InputError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a lab", "use up to 40 lower-case letters, digits and dashes")
    return base() / name


def make(name: str) -> Path:
    """A lab's directory, private and empty. Raises LabError."""
    path = directory(name)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        (path / "run").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise LabError(f"cannot make {path}: {error.strerror}", "free space, or set XDG_STATE_HOME to a directory you can write") from error
    return path


def write(path: Path, data: bytes) -> None:
    """A private file, whole or not at all. Raises LabError (full disk)."""
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        os.replace(beside, path)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}", "free space, or set XDG_STATE_HOME to another disk") from error


def kubeconfig(server: str, ca: Path, token: str, name: str = "meshtls-lab", namespace: str = "default") -> bytes:
    """A kubeconfig with one context, the CA embedded."""
    authority = base64.b64encode(ca.read_bytes()).decode()
    return yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}]}).encode()


def save(state: State) -> None:
    write(directory(state.name) / "state.json", msgspec.json.encode(state))


def load(name: str) -> State | None:
    """The recorded state; None if there is none or it cannot be read."""
    try:
        return msgspec.json.decode((directory(name) / "state.json").read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return None


def alive(state: State | None) -> bool:
    return state is not None and _process(state.pid, state.mark) is not None


def _process(pid: int, mark: str) -> psutil.Process | None:
    """The process with this id if it has this mark; None if there is none, if it is another user's or about to end."""
    try:
        process = psutil.Process(pid)
        return process if process.environ().get(MARK) == mark else None
    except (psutil.Error, OSError):
        return None


def names() -> Iterator[str]:
    """Every lab that has a directory."""
    try:
        found = sorted(entry.name for entry in base().iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))
    except OSError:
        return
    yield from found


def marked(mark: str) -> Iterator[int]:
    """Processes of ours with this mark in their environment: what a killed loopback lab left."""
    yield from (pid for pid in psutil.pids() if pid != os.getpid() and _process(pid, mark))


def clear(name: str, patience_s: float = 5.0) -> bool:
    """End a lab, whatever state it is in, and remove what is left of it. False if there was nothing. Raises LabError."""
    path, state = directory(name), load(name)
    if not path.exists():
        return False
    if state is not None:
        _end(state, patience_s)
        for pid in list(marked(state.mark)) if state.mode == LOOPBACK else ():
            kill(pid)
        addresses.remove(state.added)
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise LabError(f"cannot remove {path}", "remove it yourself, as the user who started the lab")
    return True


def _end(state: State, patience_s: float) -> None:
    process = _process(state.pid, state.mark)
    if process is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + patience_s
        if _runs(process):
            kill(state.pid, number)
        while _runs(process):
            if time.monotonic() > until:
                break
            time.sleep(0.005)
        else:
            return
    raise LabError(f"process {state.pid} does not end", f"see what it does: ps -fp {state.pid}")


def _runs(process: psutil.Process) -> bool:
    """Until nothing of it is left but its exit code: its environment goes before its sockets do."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

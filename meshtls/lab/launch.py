"""Starts a lab in the background, and says in one line why it did not start. Nothing heavy is imported here."""
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshtls.errors import LabError
from meshtls.lab import state
from meshtls.lab.node import world

LOST = ("containers run as you, on this machine's files; only Python programs are kept in their pod",
        "nothing keeps a program from going round its proxy on purpose",
        "a port that nobody declares, names in a Service or listens on is closed; in life a proxy accepts on it",
        "no port below 1024 unless you are root, and none that this machine uses on all addresses",
        "NetworkPolicies do nothing; there is no IPv6; pods have addresses in 127.0.0.0/8")


def launch(name: str, *, port: int = 0, nodes: int = 1, mode: str = "", settings: dict[str, Any] | None = None,
           owned: bool = False) -> tuple[state.State, int]:
    """Start a lab and wait until its API answers. Returns its state, and with `owned` a descriptor: the lab ends when it is closed. Without a `mode`,
    loopback where namespaces are refused. Raises LabError."""
    if not hasattr(os, "fork"):
        raise LabError("the lab needs Linux or macOS", "run it in a Linux virtual machine or container")
    if state.alive(state.load(name)):
        raise LabError(f"lab {name!r} is up already", f"use it, take it down (meshtls lab down --name {name}), or choose another --name")
    state.clear(name)
    refused = world.refused() if mode != state.LOOPBACK else ""
    if refused and mode == state.NAMESPACES:
        raise LabError(f"this machine refuses namespaces: {refused}",
                       "leave out --mode; or, on Linux, allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0), or run as root")
    mode = mode or (state.LOOPBACK if refused else state.NAMESPACES)
    mark = f"{name}-{secrets.token_hex(8)}"
    folder = state.make(name)
    hear, report = os.pipe()
    owner, held = os.pipe() if owned else (-1, -1)
    command = [sys.executable, "-m", "meshtls.lab.process", "--name", name, "--port", str(port), "--nodes", str(nodes), "--report", str(report),
               "--owner", str(owner), "--mode", mode, "--settings", json.dumps(settings or {})]
    with _log(folder) as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                                   pass_fds=[report] + ([owner] if owned else []), env=_environment(mark))
    os.close(report)
    if owned:
        os.close(owner)
    with os.fdopen(hear) as pipe:
        said = json.loads(pipe.readline() or "{}")
    process.wait()
    found = state.load(name)
    if "ready" in said and found is not None:
        return found, held
    last = _last_line(folder)
    if owned:
        os.close(held)
    state.clear(name)
    lacks = "pip install 'meshtls[lab]'" if last.startswith("ModuleNotFoundError: ") else ""
    raise LabError(said.get("error") or f"the lab did not start: {last}", said.get("hint", lacks))


def _environment(mark: str) -> dict[str, str]:
    """Ours, without what would change how containers and Envoys run."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", state.MARK)} | {
        "PYTHONPATH": str(Path(__file__).parents[2]), state.MARK: mark}


def _log(folder: Path) -> Any:
    try:
        return open(folder / "lab.log", "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise LabError(f"cannot write {folder / 'lab.log'}: {error.strerror}", "free space, or set XDG_STATE_HOME to another disk") from error


def _last_line(folder: Path) -> str:
    try:
        lines = (folder / "lab.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it wrote no log"
    return lines[-1][:300] if lines else "it ended without a word"

"""Starts a lab in the background, and says in one line why it did not start. Nothing heavy is imported here."""
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshtls.errors import LabError
from meshtls.lab import state
from meshtls.lab.node import world

LOST = ("lost in loopback mode: traffic is not captured, so a client can bypass its proxy; ports that no Service names are closed; pods share "
        "this machine's network and files; a plaintext application listens beside its proxy; NetworkPolicies do nothing")


def launch(name: str, *, port: int = 0, nodes: int = 1, settings: dict[str, Any] | None = None, owned: bool = False) -> tuple[state.State, int]:
    """Start a lab and wait until its API answers. Returns its state, and with `owned` a descriptor: the lab ends when it is closed.
    Raises LabError."""
    if state.alive(state.load(name)):
        raise LabError(f"lab {name!r} is up already", f"use it, take it down (meshtls lab down --name {name}), or choose another --name")
    state.clear(name)
    refused = world.refused()
    if refused:
        raise LabError(f"this machine refuses namespaces: {refused}",
                       "allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0), or run as root")
    folder = state.make(name)
    hear, report = os.pipe()
    owner, held = os.pipe() if owned else (-1, -1)
    command = [sys.executable, "-m", "meshtls.lab.process", "--name", name, "--port", str(port), "--nodes", str(nodes), "--report", str(report),
               "--owner", str(owner), "--settings", json.dumps(settings or {})]
    with _log(folder) as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                                   pass_fds=[report] + ([owner] if owned else []), env=_environment())
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
    raise LabError(said.get("error") or f"the lab did not start: {last}", said.get("hint", ""))


def _environment() -> dict[str, str]:
    """Ours, without what would change how containers and Envoys run."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME")} | {
        "PYTHONPATH": str(Path(__file__).parents[2])}


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

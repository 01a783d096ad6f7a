"""An API alone on loopback, with one pretended node and a log that the tests write."""
import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshtls.lab.api.standalone import Standalone, standalone
from meshtls.lab.api.store import Store

KUBECTL = Path(sys.executable).with_name("kubectl")


class WrittenLog:
    """A LogSource whose lines are given; a followed log goes on until `finish`."""

    def __init__(self) -> None:
        self.text: dict[str, list[bytes]] = {}
        self.more: dict[str, asyncio.Queue[bytes | None]] = {}

    async def lines(self, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None, **_: Any) -> AsyncIterator[bytes]:
        held = self.text.get(pod)
        if held is None:
            raise LookupError(f'container "{container}" in pod "{pod}" has not run')
        for line in held[-tail:] if tail else held:
            yield line
        queue = self.more.setdefault(pod, asyncio.Queue())
        while follow and (line := await queue.get()) is not None:
            yield line


def node(store: Store) -> None:
    store.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}, "status": {"conditions": [
        {"type": "Ready", "status": "True"}]}})


@pytest.fixture(scope="module")
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture(scope="module")
def api(log: WrittenLog) -> Iterator[Standalone]:
    with standalone(log_source=log, prepare=node) as running:
        yield running


@pytest.fixture(scope="module")
def http(api: Standalone) -> Iterator[httpx.Client]:
    import ssl
    with httpx.Client(base_url=api.server, verify=ssl.create_default_context(cafile=api.ca), timeout=30,
                      headers={"Authorization": f"Bearer {api.token}"}) as client:
        yield client


@pytest.fixture(scope="module")
def kubectl(api: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run kubectl; its output, or an AssertionError with what it said."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": api.kubeconfig}
        done = subprocess.run([str(KUBECTL), *arguments], input=stdin, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr
    run.environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": api.kubeconfig}  # type: ignore[attr-defined]
    return run

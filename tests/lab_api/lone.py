"""What the tests give a lone API: a log that they write themselves, and one pretended node."""
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meshtls.lab.api.store import Store

KUBECTL = Path(sys.executable).with_name("kubectl")


class WrittenLog:
    """A LogSource whose lines are given; a followed log goes on until `finish`."""

    def __init__(self) -> None:
        self.text: dict[str, list[bytes]] = {}
        self.more: dict[str, asyncio.Queue[bytes | None]] = {}

    async def lines(self, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None,
                    **_: Any) -> AsyncIterator[bytes]:
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

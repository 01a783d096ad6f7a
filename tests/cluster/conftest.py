"""A client whose server is a function, and a clock that moves only when somebody waits."""

from collections.abc import Callable

import httpx
import pytest

from meshtls.cluster.auth import Access
from meshtls.cluster.client import Client
from meshtls.cluster.transport import Transport

ACCESS = Access(server="https://api.test", namespace="shop", who="user ann", tls=None, authorization="Bearer t1")


class Clock:
    """Seconds that pass by waiting only; `waits` is how long each wait was asked to be."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def serve(clock: Clock):
    """`serve(handler)` is a client of a server that answers with `handler(request)`; `serve.seen` are the requests."""
    clients = []

    def make(handler: Callable[[httpx.Request], httpx.Response], *, timeout_s: float = 30.0, reload=None) -> Client:
        def answer(request: httpx.Request) -> httpx.Response:
            make.seen.append(request)
            return handler(request)

        transport = Transport(
            ACCESS, timeout_s, reload=reload, transport=httpx.MockTransport(answer), pause=clock.wait, clock=clock
        )
        clients.append(Client(transport))
        return clients[-1]

    make.seen = []
    yield make
    for client in clients:
        client.close()


def status(code: int, message: str = "", reason: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
    """A Kubernetes Status as an answer."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code}
    return httpx.Response(code, json=body, headers=headers)

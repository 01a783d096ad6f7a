"""A server that does not answer is told of while it does not, once, and again when it does."""

import queue
import threading

import httpx

from meshtls.cluster.auth import Access
from meshtls.cluster.client import Client
from meshtls.cluster.patience import Patience
from meshtls.cluster.transport import Transport

ACCESS = Access(server="https://10.0.0.1:6443", namespace="shop", who="user ann", tls=None, authorization="Bearer t")
WAIT_S = 30


def test_a_server_that_hangs_is_named_while_the_answer_is_still_awaited() -> None:
    said: queue.Queue[str] = queue.Queue()
    go = threading.Event()

    def hangs(request: httpx.Request) -> httpx.Response:
        assert go.wait(WAIT_S)
        return httpx.Response(200, json={})

    transport = Transport(ACCESS, 30.0, transport=httpx.MockTransport(hangs), say=said.put)
    transport._patience = Patience(ACCESS.server, said.put, after_s=0.01, again_s=60)
    client = Client(transport)
    asking = threading.Thread(target=client.get, args=("Pod", "cart", "shop"))
    asking.start()
    first = said.get(timeout=WAIT_S)
    go.set()
    asking.join(WAIT_S)
    client.close()

    assert first.startswith("no answer from https://10.0.0.1:6443 for 0 s (get Pod shop/cart); still trying")
    assert said.get(timeout=WAIT_S) == "https://10.0.0.1:6443 answers again"
    assert said.empty()


def test_why_the_last_attempt_failed_is_told() -> None:
    said: queue.Queue[str] = queue.Queue()
    patience = Patience("https://a", said.put, after_s=0.01, again_s=60)
    with patience.asking("list pods"):
        patience.failed("Connection refused")
        assert said.get(timeout=WAIT_S) == "no answer from https://a for 0 s (list pods: Connection refused); still trying"
    patience.close()


def test_a_server_that_answers_is_not_talked_about() -> None:
    said: queue.Queue[str] = queue.Queue()
    transport = Transport(ACCESS, 30.0, transport=httpx.MockTransport(lambda request: httpx.Response(200, json={})), say=said.put)
    client = Client(transport)
    client.get("Pod", "cart", "shop")
    client.close()
    assert said.empty()

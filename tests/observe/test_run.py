"""Reading and following proxies: what is silent, deaf or off is never taken for good."""

import threading

import httpx
import msgspec
import pytest

from meshtls.cluster.auth import Access
from meshtls.cluster.client import Client
from meshtls.cluster.transport import Transport
from meshtls.errors import NoData
from meshtls.model.check import Status
from meshtls.model.config import MeshConfig
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import run
from meshtls.observe.ears import Ears, Proxy

PLAIN = (
    '[2026-11-23T10:00:00.123Z] "GET / HTTP/1.1" 200 - via_upstream - "-" 0 12 3 2 "-" "c" "id" "gateway" "10.0.0.5:8080" '
    "inbound|8080|| 127.0.0.6:50001 10.0.0.5:8080 10.0.0.9:40112 - default"
)
OUT = PLAIN.replace("inbound|8080||", "outbound|80||x")


def pod(name: str, ip: str, *containers: str, init: tuple[str, ...] = ()) -> Pod:
    return msgspec.convert({
        "metadata": {"name": name, "namespace": "payments", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": c} for c in containers], "initContainers": [{"name": c} for c in init]},
        "status": {"phase": "Running", "podIP": ip},
    }, Pod)


GATEWAY, LEDGER = pod("gateway", "10.0.0.5", "app", "istio-proxy"), pod("ledger", "10.0.0.6", "app", init=("istio-proxy",))
CLIENT = pod("billing", "10.0.0.9", "app")
ON = MeshConfig(access_log_file="/dev/stdout")


def mesh(config: MeshConfig = ON) -> Mesh:
    return Mesh(pods=(GATEWAY, LEDGER, CLIENT), configs={"default": config})


def client(logs: dict[str, list[str] | int]) -> Client:
    """A cluster whose pods' proxies wrote these lines; a number is the status that reading them gives."""

    def answer(request: httpx.Request) -> httpx.Response:
        said = logs[request.url.path.split("/")[-2]]
        if isinstance(said, int):
            return httpx.Response(said, json={"kind": "Status", "message": "no", "details": {"name": "x"}})
        stamped = [f"2026-11-23T10:00:0{n}.5Z {line}" if "timestamps" in request.url.params else line
                   for n, line in enumerate(said)]
        since = request.url.params.get("sinceTime", "")
        return httpx.Response(200, text="".join(f"{line}\n" for line in stamped if not line[:1].isdigit() or line[:19] >= since[:19]))

    access = Access(server="https://api.test", namespace="x", who="ann", tls=None)
    return Client(Transport(access, 0.2, transport=httpx.MockTransport(answer)))


def checks(logs: dict[str, list[str] | int], config: MeshConfig = ON):
    heard = run.start(mesh(config), ["payments"])
    run.read(client(logs), heard, "2026-01-01T00:00:00Z")
    return {check.title: check for check in run.checks(heard, mesh(config), ["payments"])}


def test_classic_and_native_sidecars_are_heard_and_pods_without_are_not() -> None:
    assert [p.pod for p in run.start(mesh(), ["payments"]).proxies] == ["gateway", "ledger"]


def test_plaintext_is_a_failure_and_a_silent_workload_a_skip() -> None:
    found = checks({"gateway": [PLAIN, OUT], "ledger": []})

    assert found["plaintext to Pod/payments/gateway"].status is Status.FAIL
    assert "Pod/payments/billing" in found["plaintext to Pod/payments/gateway"].findings[0].message
    assert found["plaintext to Pod/payments/ledger"].status is Status.SKIP


def test_a_proxy_that_cannot_be_read_is_an_error_not_silence() -> None:
    found = checks({"gateway": [PLAIN.replace(" - default", " outbound_.80_._.g default")], "ledger": 403})

    assert found["plaintext to Pod/payments/gateway"].status is Status.PASS
    assert found["plaintext to Pod/payments/ledger"].status is Status.ERROR


def test_no_line_with_logging_off_is_no_data() -> None:
    with pytest.raises(NoData, match="access logging is off"):
        checks({"gateway": ["info ready"], "ledger": []}, MeshConfig())


def test_an_outbound_line_is_enough_to_know_that_logging_is_on() -> None:
    assert checks({"gateway": [OUT], "ledger": []}, MeshConfig())["plaintext to Pod/payments/gateway"].status is Status.SKIP


def test_a_namespace_without_proxies_is_no_data() -> None:
    with pytest.raises(NoData, match="no proxy runs in empty"):
        run.start(mesh(), ["empty"])


def test_a_log_that_ends_is_followed_again_and_no_line_comes_twice() -> None:
    logs: dict[str, list[str] | int] = {"gateway": ["one", "two"]}
    with Ears(client(logs), "2026-01-01T00:00:00Z") as ears:
        ears.follow([Proxy("payments", "gateway")])
        heard: list[str] = []
        while len(heard) < 2:
            heard += [line for _, line in ears.heard(5.0)]
        logs["gateway"] = ["one", "two", "three"]
        heard += [line for _, line in ears.heard(5.0)]

    assert heard == ["one", "two", "three"]


def test_a_log_that_cannot_be_opened_makes_its_proxy_deaf_and_the_limit_does_too() -> None:
    with Ears(client({"gateway": 403, "ledger": []}), "2026-01-01T00:00:00Z", limit=1) as ears:
        ears.follow([Proxy("payments", "gateway"), Proxy("payments", "ledger")])
        ears.ready(5.0)

        assert "not allowed" in ears.deaf[Proxy("payments", "gateway")]
        assert "more than 1" in ears.deaf[Proxy("payments", "ledger")]
    assert not [t for t in threading.enumerate() if t.name.startswith("log payments")]


def test_tls_without_the_name_that_sidecars_give_is_counted_apart() -> None:
    named = PLAIN.replace("10.0.0.9:40112 -", "10.0.0.9:40112 outbound_.8080_._.gateway.payments.svc.cluster.local")
    raw = PLAIN.replace("10.0.0.9:40112 -", "10.0.0.9:40112 gateway.payments")
    heard = run.start(mesh(), ["payments"])
    run.read(client({"gateway": [named, raw, raw], "ledger": [PLAIN]}), heard, "2026-01-01T00:00:00Z")
    assert sorted((s.server, s.verdict.value, s.count, s.raw) for s in heard.group.senders) == [
        ("Pod/payments/gateway", "MTLS", 3, 2), ("Pod/payments/gateway", "PLAINTEXT", 1, 0)]

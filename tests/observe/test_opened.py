"""What a ztunnel counts -> which plaintext connections it holds open."""

import httpx
import msgspec
import pytest

from meshtls.cluster.auth import Access
from meshtls.cluster.client import Client
from meshtls.cluster.transport import Transport
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import run
from meshtls.observe.opened import Open, plaintext


def series(what: str, count: float, source: str = "raw/billing", policy: str = "unknown", reporter: str = "destination", flags: str = "-",
           to: str = "shop/cart") -> str:  # fmt: skip
    space, name = source.split("/")
    there, server = to.split("/")
    return (f'istio_tcp_connections_{what}_total{{reporter="{reporter}",source_workload="{name}",source_workload_namespace="{space}",'
            f'source_principal="unknown",destination_workload="{server}",destination_workload_namespace="{there}",request_protocol="tcp",'
            f'response_flags="{flags}",connection_security_policy="{policy}"}} {count}')  # fmt: skip


def test_what_was_opened_and_has_not_ended_is_open() -> None:
    text = [series("opened", 7), series("closed", 4), series("closed", 1, flags="DENY")]
    assert plaintext(text, "shop") == (Open("raw/billing", "shop/cart", 2),)


@pytest.mark.parametrize("line", [
    series("opened", 3, policy="mutual_tls"), series("opened", 3, reporter="source"), series("opened", 3, to="other/cart"),
    series("opened", 0),
])  # fmt: skip
def test_mtls_the_senders_report_and_other_namespaces_are_none(line: str) -> None:
    assert plaintext([line], "shop") == ()


@pytest.mark.parametrize("number", ["1.2.3", "e", "NaN", "1e999", "-3", ""])
def test_a_counter_that_cannot_be_read_is_no_answer(number: str) -> None:
    broken = series("opened", 2).rpartition(" ")[0] + f" {number}"

    assert plaintext([series("opened", 1), broken], "shop") is None


def test_large_counters_are_read_as_they_are_written() -> None:
    assert plaintext([series("opened", 2).rpartition(" ")[0] + " 1e+06"], "shop") == (Open("raw/billing", "shop/cart", 1_000_000),)


def test_all_that_ended_is_none_however_it_ended() -> None:
    assert plaintext([series("opened", 2), series("closed", 1), series("closed", 1, flags="DENY")], "shop") == ()


def test_metrics_without_the_family_say_nothing() -> None:
    assert plaintext(["# TYPE istio_build gauge", 'istio_build{component="ztunnel"} 1'], "shop") is None
    assert plaintext(["# TYPE istio_tcp_connections_opened counter"], "shop") == ()


def pod(name: str, namespace: str, node: str, **meta: object) -> Pod:
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace, **meta}, "spec": {"nodeName": node, "containers": [{"name": "c"}]},
                            "status": {"phase": "Running"}}, Pod)  # fmt: skip


CAPTURED = pod("cart-1", "shop", "one", annotations={"ambient.istio.io/redirection": "enabled"})
ZTUNNEL = pod("ztunnel-a", "istio-system", "one", labels={"app": "ztunnel"})


def asked(mesh: Mesh, answer: httpx.Response) -> tuple[tuple[Open, ...], str, list[str]]:
    paths: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return answer

    client = Client(Transport(Access(server="https://api.test", namespace="x", who="ann", tls=None), 0.2, transport=httpx.MockTransport(serve)))
    found, why = run.open_plaintext(client, mesh, "shop")
    return found, why, paths


def test_the_ztunnels_of_the_namespaces_nodes_are_asked_through_the_api_server() -> None:
    elsewhere = pod("ztunnel-b", "istio-system", "two", labels={"app": "ztunnel"})
    found, why, paths = asked(Mesh(pods=(CAPTURED, ZTUNNEL, elsewhere)), httpx.Response(200, text=series("opened", 1)))
    assert (found, why) == ((Open("raw/billing", "shop/cart", 1),), "")
    assert paths == ["/api/v1/namespaces/istio-system/pods/ztunnel-a:15020/proxy/metrics"]


@pytest.mark.parametrize(("mesh", "answer", "reason"), [
    (Mesh(pods=(CAPTURED, ZTUNNEL)), httpx.Response(403, json={"kind": "Status", "message": "no"}), "not allowed"),
    (Mesh(pods=(CAPTURED, ZTUNNEL)), httpx.Response(200, text="hello"), "has no metrics of connections"),
    (Mesh(pods=(CAPTURED,)), httpx.Response(200, text=""), "no ztunnel runs on node one"),
])  # fmt: skip
def test_what_cannot_be_asked_is_a_reason_and_never_none(mesh: Mesh, answer: httpx.Response, reason: str) -> None:
    found, why, _ = asked(mesh, answer)
    assert found == () and reason in why


def test_where_nothing_is_captured_nobody_is_asked() -> None:
    assert asked(Mesh(pods=(ZTUNNEL,)), httpx.Response(500)) == ((), "", [])

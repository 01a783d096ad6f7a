"""Counts beside what the logs name: each client by its name as far as somebody knows it, and no name for the rest."""

import datetime

import msgspec
import pytest

from meshtls.model.check import Check, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import counted
from meshtls.observe.accesslog import Verdict
from meshtls.observe.counted import Counted
from meshtls.observe.metrics import Flow, Security
from meshtls.observe.senders import Sender
from meshtls.observe.who import Client

NOW = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def pod(name: str, ip: str, where: str = "shop", **more: object) -> Pod:
    return msgspec.convert({
        "metadata": {"name": name, "namespace": where, "creationTimestamp": "2026-01-01T00:00:00Z", **more},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}], "nodeName": "n1"}, "status": {"phase": "Running", "podIP": ip},
    }, Pod)


MESH = Mesh(pods=(pod("web", "10.0.0.1"),))
BILLING = Client(name="legacy/billing", address="10.0.0.9", ref="Deployment/legacy/billing")
STRANGER = Client(name="unknown", address="203.0.113.5")
PROBE = Client(name="shop/meshtls-probe", address="10.0.0.8", ref="Pod/shop/meshtls-probe", own=True)


def flow(count: float, security: Security = Security.PLAINTEXT, source: str = "", http: bool = True, to: str = "web") -> Flow:
    return Flow(namespace="shop", destination=to, source=source, security=security, http=http, count=count)


def sender(client: Client, count: int, verdict: Verdict = Verdict.PLAINTEXT, http: bool = True) -> Sender:
    return Sender(client=client, server="Pod/shop/web", address="10.0.0.1", port=8080, verdict=verdict, count=count, first="", last="",
                  example="GET /" if http else "")


def check(flows: list[Flow], senders: list[Sender] = [], mesh: Mesh = MESH, **more: object) -> Check:  # noqa: B006
    state = {"scraped": {"10.0.0.1": True}, "knows": NOW - HOUR, **more}
    given = Counted(name="http://prom", asked=NOW, since=NOW - HOUR, flows=tuple(flows), **state)  # type: ignore[arg-type]
    return counted.checks(given, counted.proxied(mesh, ["shop"]), mesh, senders)[0]


def test_whom_the_logs_name_is_the_subject_and_nobody_else_where_they_name_as_many() -> None:
    found = check([flow(100.4)], [sender(BILLING, 95)])

    assert [f.subject for f in found.findings] == ["Deployment/legacy/billing"]
    assert "by the logs" in found.findings[0].message


def test_where_the_logs_name_fewer_the_rest_has_no_name() -> None:
    found = check([flow(100)], [sender(BILLING, 50)])

    assert [f.subject for f in found.findings] == ["Deployment/legacy/billing", "Pod/shop/web"]
    assert "a client that the metrics do not name; the logs name legacy/billing, and fewer arrivals, sends plaintext" in found.findings[1].message


@pytest.mark.parametrize("senders", [[], [sender(BILLING, 100, http=False)], [sender(BILLING, 100, Verdict.MTLS)], [sender(BILLING, 100, Verdict.REFUSED)]])
def test_what_the_logs_tell_of_something_else_explains_nothing(senders: list[Sender]) -> None:
    found = check([flow(100)], senders)

    assert [f.subject for f in found.findings] == ["Pod/shop/web"]
    assert "nor do the logs" in found.findings[0].message


def test_tls_of_the_application_in_the_logs_explains_what_tcp_counts_as_plaintext() -> None:
    assert [f.subject for f in check([flow(5, http=False)], [sender(BILLING, 5, Verdict.APP_TLS, http=False)]).findings] == ["Deployment/legacy/billing"]


def test_what_ztunnel_refused_is_lent_the_names_of_those_whom_the_logs_saw_refused() -> None:
    found = check([flow(5, Security.REFUSED, http=False)], [sender(BILLING, 5, Verdict.REFUSED, http=False), sender(STRANGER, 5, http=False)])

    assert [(f.code, f.subject) for f in found.findings] == [("MT602", "Deployment/legacy/billing")]


def test_our_own_probes_are_no_finding_and_explain_what_they_sent() -> None:
    assert check([flow(3), flow(50, Security.MTLS)], [sender(PROBE, 3)]).status is Status.PASS
    assert check([flow(9), flow(50, Security.MTLS)], [sender(PROBE, 3)]).status is Status.FAIL


def test_a_client_outside_is_shown_by_its_address() -> None:
    assert "203.0.113.5" in check([flow(3)], [sender(STRANGER, 3)]).findings[0].message


def test_plaintext_is_a_failure_also_where_parts_of_the_answer_are_missing() -> None:
    assert check([flow(3)], incomplete="a store is down").status is Status.FAIL
    assert check([flow(3, Security.MTLS)], incomplete="a store is down").status is Status.ERROR


def test_no_series_and_no_scrape_are_unknown_and_no_series_of_a_scraped_proxy_proves_nothing() -> None:
    assert check([]).status is Status.SKIP
    assert check([], scraped={}).status is Status.ERROR
    assert check([], scraped={"10.0.0.1": False}).status is Status.ERROR


def test_where_targets_have_other_names_than_addresses_arrivals_are_sign_enough_of_life() -> None:
    assert check([flow(3, Security.MTLS)], scraped={}).status is Status.PASS


def test_a_prometheus_that_is_younger_than_the_time_asked_about_may_count_what_was_before() -> None:
    assert "or before that" in check([flow(3)], knows=NOW - HOUR / 2).findings[0].message
    assert "or before that" not in check([flow(3)]).findings[0].message


def test_a_workload_that_is_gone_is_told_of_all_the_same() -> None:
    given = Counted(name="http://prom", asked=NOW, since=NOW - HOUR, flows=(flow(4, to="old"),), scraped={"10.0.0.1": True}, knows=NOW - HOUR)
    found = {c.id: c.status for c in counted.checks(given, counted.proxied(MESH, ["shop"]), MESH)}

    assert found == {"metrics/Pod/shop/web": Status.SKIP, "metrics/Workload/shop/old": Status.FAIL}


def test_an_ambient_workload_is_told_of_by_the_ztunnel_of_its_node() -> None:
    ztunnel = pod("ztunnel-x", "10.9.9.9", "istio-system", labels={"app": "ztunnel"})
    captured = msgspec.structs.replace(MESH.pods[0], metadata=msgspec.structs.replace(
        MESH.pods[0].metadata, annotations={"ambient.istio.io/redirection": "enabled"}))

    assert [w.proxies for w in counted.proxied(Mesh(pods=(captured, ztunnel)), ["shop"])] == [("10.9.9.9",)]


def test_meshtls_own_pods_and_pods_without_a_proxy_are_no_workloads() -> None:
    own = pod("probe", "10.0.0.7", labels={"app.kubernetes.io/managed-by": "meshtls"})
    bare = msgspec.convert({"metadata": {"name": "bare", "namespace": "shop"}, "spec": {"containers": [{"name": "app"}]},
                            "status": {"phase": "Running", "podIP": "10.0.0.6"}}, Pod)

    assert counted.proxied(Mesh(pods=(own, bare)), ["shop"]) == ()

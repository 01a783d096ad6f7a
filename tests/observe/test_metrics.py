"""What Prometheus is asked and what its answers are read as; what no Prometheus says is told apart from what it refuses."""

import json

import pytest

from meshtls.errors import InputError
from meshtls.observe.metrics import Answer, Flow, Query, Security, arrivals, decode, flows, scraped, senders_through

METRICS = {"destination_workload": "gateway", "destination_workload_namespace": "shop", "destination_service_name": "gateway"}


def vector(*series: tuple[dict[str, str], str]) -> Answer:
    result = [{"metric": {**METRICS, **metric}, "value": [1.0, value]} for metric, value in series]
    return decode(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())


def flow(count: float, security: Security = Security.PLAINTEXT, source: str = "", http: bool = True) -> Flow:
    return Flow(namespace="shop", destination="gateway", source=source, security=security, http=http, service="gateway", count=count)


REQUESTS, CONNECTIONS, REFUSED = (Query(name, "") for name in ("requests", "connections", "refused"))


def test_growth_and_what_new_series_began_with_are_added_up() -> None:
    legacy = {"source_workload": "unknown", "connection_security_policy": "none"}
    meshed = {"source_workload": "web", "source_workload_namespace": "mesh", "connection_security_policy": "mutual_tls"}

    assert flows([(REQUESTS, vector((legacy, "3"), (meshed, "40.5"))), (REQUESTS, vector((legacy, "1")))]) == (
        flow(4), flow(40.5, Security.MTLS, "mesh/web"),
    )


def test_ztunnels_refusals_are_taken_off_what_it_opened() -> None:
    unknown = {"connection_security_policy": "unknown"}

    assert flows([(CONNECTIONS, vector((unknown, "5"))), (REFUSED, vector((unknown, "5.2")))]) == (
        flow(5.2, Security.REFUSED, http=False),
    )


def test_mtls_that_an_authorization_policy_refuses_is_mtls() -> None:
    mutual = {"connection_security_policy": "mutual_tls"}

    assert flows([(CONNECTIONS, vector((mutual, "5"))), (REFUSED, vector((mutual, "5")))]) == (flow(5, Security.MTLS, http=False),)


@pytest.mark.parametrize("value", ["0", "0.3", "NaN", "+Inf", "many"])
def test_what_is_no_arrival_is_none(value: str) -> None:
    assert flows([(REQUESTS, vector(({"connection_security_policy": "none"}, value)))]) == ()


def test_a_sender_by_passthrough_without_a_name_is_left_out() -> None:
    named = {"source_workload": "web", "source_workload_namespace": "mesh", "destination_workload": "unknown"}

    assert [(f.source, f.destination, f.count) for f in senders_through([(REQUESTS, vector((named, "3"), ({}, "2")))])] == [("mesh/web", "", 3.0)]


def test_names_and_addresses_match_themselves_only() -> None:
    assert 'destination_workload_namespace=~"a|b-c"' in arrivals(["b-c", "a"], 60)[0].text
    assert scraped(["10.0.0.1"]).text == r'max by (instance) (up{instance=~"10\\.0\\.0\\.1:15020|10\\.0\\.0\\.1:15090"})'
    assert r'"\\[fd00::1\\]:15020|' in scraped(["fd00::1"]).text


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"{}", b'{"status": "maybe"}', b'{"status": "success", "data": {"result": [{"metric": 1}]}}'])
def test_what_no_prometheus_says_is_named(body: bytes) -> None:
    with pytest.raises(InputError, match="not that of a Prometheus"):
        decode(body)


def test_victoriametrics_says_otherwise_that_parts_are_missing() -> None:
    assert "partial" in decode(json.dumps({"status": "success", "isPartial": True, "data": {"resultType": "vector", "result": []}}).encode()).incomplete


@pytest.mark.parametrize("value", ["NaN", "+Inf", "many"])
def test_a_value_that_is_no_number_is_a_part_that_is_missing(value: str) -> None:
    assert "no number" in vector(({"connection_security_policy": "none"}, value)).incomplete


def test_names_are_data_in_a_query() -> None:
    assert r'namespace=~"a\\\"\\} or vector\\(1\\) \\#\\.\\*"' in arrivals(['a"} or vector(1) #.*'], 60)[0].text


def test_a_warning_means_that_parts_are_missing_and_a_remark_about_style_does_not() -> None:
    def said(*warnings: str) -> str:
        return decode(json.dumps({"status": "success", "warnings": warnings}).encode()).incomplete

    assert said("No StoreAPIs matched for this query") == "No StoreAPIs matched for this query"
    assert said("PromQL info: metric might not be a counter") == said() == ""

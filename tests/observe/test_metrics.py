"""Prometheus' answers: only what the destination reports counts, and no series is no answer."""

import json

import pytest

from meshtls.errors import InputError
from meshtls.observe.metrics import FAMILIES, Flow, flows, query


def vector(*series: tuple[dict, str]) -> bytes:
    result = [{"metric": metric, "value": [1.0, value]} for metric, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_flows_are_named_by_what_the_destination_knows() -> None:
    legacy = {"destination_workload": "gateway", "source_workload": "unknown", "connection_security_policy": "none"}
    meshed = {"destination_workload": "gateway", "source_workload": "web", "source_workload_namespace": "shop",
              "connection_security_policy": "mutual_tls"}

    assert flows(vector((legacy, "3"), (meshed, "40.5"))) == (
        Flow("gateway", "shop/web", True, 40.5), Flow("gateway", "unknown", False, 3.0),
    )


def test_no_series_are_no_flows() -> None:
    assert flows(vector()) == ()


@pytest.mark.parametrize("body", [b"<html>", b'{"status":"error","error":"parse"}', b'{"status":"success","data":{"resultType":"matrix"}}'])
def test_what_is_no_answer_is_named(body) -> None:
    with pytest.raises(InputError):
        flows(body)


def test_a_query_asks_the_destination_only() -> None:
    assert query(FAMILIES[0], "shop", 3600) == (
        "sum by (destination_workload,source_workload,source_workload_namespace,connection_security_policy) "
        '(increase(istio_requests_total{reporter=~"destination|waypoint",destination_workload_namespace="shop"}[3600s])) > 0'
    )

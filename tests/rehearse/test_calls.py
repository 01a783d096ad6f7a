"""Who calls whom comes from the best source there is, and the report says from which."""

import pytest

from meshtls.errors import InputError
from meshtls.rehearse.calls import GIVEN, LOGGED, NAMED, PREDICTED, Arrival, Call, best
from tests.rehearse.meshes import BILLING, CART, GATEWAY, MESHED, namespace, shop, workload, written


def test_names_of_services_in_environments_are_calls_to_the_port_that_they_say():
    known = best(shop(), "payments")

    assert known.source == NAMED
    assert set(known.calls) == {Call(CART, GATEWAY, 80), Call(BILLING, GATEWAY, 80), Call("Deployment/payments/gateway", "Service/payments/ledger", 80)}


def test_only_calls_that_begin_or_end_in_the_namespace_are_rehearsed():
    assert all("payments" in (call.home, call.service[0]) for call in best(shop(), "payments").calls)
    assert {call.client for call in best(shop(), "data").calls} == {"Deployment/shop/catalog"}


def test_where_nobody_names_the_namespace_everybody_in_reach_is_taken_to_call_it():
    known = best(shop(), "platform")

    assert known.source == PREDICTED
    assert {"Deployment/legacy/billing", "CronJob/legacy/nightly-export", CART} <= {call.client for call in known.calls}
    assert {call.server for call in known.calls if call.service[0] == "platform"} == {"Service/platform/policy"}


def test_everybody_in_reach_is_taken_when_it_is_asked_for():
    known = best(shop(), "payments", everybody=True)

    assert known.source == PREDICTED and Call("Deployment/monitoring/scraper", GATEWAY, 80) in known.calls


def test_a_list_of_calls_is_all_there_is():
    document = {"calls": [{"client": "legacy/billing", "server": "payments/gateway"}, {"client": "shop/cart", "server": "data/db", "port": 5432}]}
    known = best(shop(), "payments", document)

    assert known.source == GIVEN and known.calls == (Call(BILLING, GATEWAY, 80),)
    assert known.notes == ("1 calls neither begin nor end in payments",)


@pytest.mark.parametrize(("document", "says"), [
    ({"calls": [{"client": "legacy/nobody", "server": "payments/gateway"}]}, "names 0 workloads"),
    ({"calls": [{"client": "legacy/billing", "server": "payments/nothing"}]}, "no Service payments/nothing"),
    ({"calls": [{"client": "legacy/billing", "server": "payments/gateway", "port": 81}]}, "no TCP port 81"),
    ({"calls": [{"client": "legacy/billing"}]}, "cannot be read"), ({"else": 1}, "cannot be read"), ([], "cannot be read"), ("text", "cannot be read")])
def test_a_list_that_cannot_be_used_is_one_line_that_says_why(document, says):
    with pytest.raises(InputError, match=says) as error:
        best(shop(), "payments", document)
    assert error.value.hint


def test_a_report_of_observe_names_who_was_heard_by_the_port_of_the_workload():
    document = {"kind": "ObserveReport", "findings": [
        {"code": "MT601", "subject": "Deployment/monitoring/scraper", "because": ["access log of Deployment/payments/gateway port 8080", "for instance GET /"]},
        {"code": "MT601", "subject": "Deployment/payments/gateway", "because": ["access log of Deployment/payments/gateway port 8080"]},
        {"code": "MT601", "subject": "Client/10.1.2.3", "because": ["access log of Deployment/payments/ledger port 8080"]}]}
    known = best(shop(), "payments", document)

    assert Call("Deployment/monitoring/scraper", GATEWAY, 80) in known.calls
    assert Call(CART, GATEWAY, 80) in known.calls  # over mTLS, by its environment
    assert any("Client/10.1.2.3" in note for note in known.notes)


def test_who_was_heard_in_logs_calls_the_services_that_lead_there_beside_those_that_are_named():
    scraper = "Deployment/monitoring/scraper"
    heard = [Arrival(scraper, "Deployment/payments/gateway", 8080), Arrival("10.9.9.9", "Deployment/payments/gateway", 8080),
             Arrival(scraper, "Deployment/payments/gateway", 15021)]  # fmt: skip
    known = best(shop(), "payments", heard=heard)

    assert known.source == f"{LOGGED} and {NAMED}"
    assert set(known.calls) == {Call(scraper, GATEWAY, 80), Call(CART, GATEWAY, 80), Call(BILLING, GATEWAY, 80),
                                Call("Deployment/payments/gateway", "Service/payments/ledger", 80)}  # fmt: skip
    [note] = known.notes
    assert "10.9.9.9 to Deployment/payments/gateway port 8080" in note and f"{scraper} to Deployment/payments/gateway port 15021" in note
    assert best(shop(), "payments", heard=[]).source == NAMED


def test_a_port_in_a_text_is_the_one_that_is_called_else_that_of_the_scheme_else_all():
    ports = """
apiVersion: v1
kind: Service
metadata: {name: many, namespace: shop}
spec: {selector: {app: server}, ports: [{name: http, port: 80}, {name: https, port: 443}, {name: tcp-db, port: 5432}, {name: dns, port: 53, protocol: UDP}]}
---
"""
    def called(text):
        mesh = written(MESHED + workload("server") + ports + workload("client", calls=text))
        return [call.port for call in best(mesh, "shop").calls if call.server == "Service/shop/many"]

    assert called("many.shop:5432") == [5432]
    assert called("https://many.shop/path") == [443]
    assert called("many.shop.svc.cluster.local") == [80, 443, 5432]


def test_a_workload_that_names_its_own_service_does_not_call():
    mesh = written(MESHED + workload("server", calls="http://server.shop") + workload("client", calls="http://server.shop"))

    assert [call.client for call in best(mesh, "shop").calls] == ["Deployment/shop/client"]


def test_a_namespace_without_services_and_without_clients_has_no_calls():
    assert best(written(MESHED + namespace("other") + workload("client", "other")), "shop").calls == ()

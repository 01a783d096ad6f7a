"""The guard as ValidatingAdmissionPolicies, judged by an API server that evaluates them."""

import contextlib
import datetime
import ssl
from collections.abc import Iterator

import httpx
import pytest

from meshtls.cluster import owned
from meshtls.guard.admission import admission
from meshtls.guard.rules import RULES
from meshtls.probe import deploy
from meshtls.probe.case import HTTP, Client, Server
from tests.guard import cases, judges
from tests.lone_api import Standalone, standalone


@contextlib.contextmanager
def client(running: Standalone) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=running.ca)
    with httpx.Client(base_url=running.server, verify=context, headers={"Authorization": f"Bearer {running.token}"}) as http:
        yield http


@contextlib.contextmanager
def guarded(action: str = "deny") -> Iterator[httpx.Client]:
    """The API with the world of world.yaml, guarded."""
    with standalone() as running, client(running) as http:
        judges.fill(http, admission(cases.kept(), "vap", action))
        yield http


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with guarded() as http:
        yield http


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_what_weakens_is_refused_by_its_rule_and_all_else_is_taken(api: httpx.Client, case: cases.Case) -> None:
    assert judges.refused_by(judges.ask(api, case)) == case.rule


@pytest.mark.parametrize("namespace", ["shop", "amb"])
def test_the_pods_of_a_probe_pass_as_they_are_made(api: httpx.Client, namespace: str) -> None:
    """Else a guarded namespace could no longer be proven to be STRICT. (Its meshed pods meet the injector first.)"""
    settings = deploy.Settings(run="abc")
    run = owned.Run("abc", "probe", datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    agent = deploy.agent_objects(settings, Client(namespace=namespace, meshed=False), 0, {"cases": []}, {})[1]
    echo = deploy.echo_pod(settings, Server(namespace=namespace, meshed=False), (HTTP,))

    for pod in (agent, echo):
        answer = api.post(judges.path(pod), json=owned.stamp(pod, run), params={"dryRun": "All"})
        assert answer.status_code == 201, answer.text


def test_every_rule_has_a_request_that_it_refuses_and_one_that_it_lets_through() -> None:
    kinds = {rule.name: {r.kind for target in judges.targets(rule) for r in target.resources} for rule in RULES}
    for rule in RULES:
        assert any(case.rule == rule.name for case in cases.CASES), rule.name
        assert any(not case.rule and case.subject["kind"] in kinds[rule.name] for case in cases.CASES), rule.name
    assert {case.rule for case in cases.CASES} - {""} == {rule.name for rule in RULES}


def test_a_refusal_says_what_is_wrong_with_whom_and_the_way_out(api: httpx.Client) -> None:
    answer = judges.ask(api, next(c for c in cases.CASES if c.name == "a port made PERMISSIVE")).json()["message"]

    assert "namespace shop is kept STRICT: this port exception is not among those that stood when it was guarded: port-mode 80 PERMISSIVE" in answer
    assert "kubectl delete validatingadmissionpolicybinding -l meshtls.dev/guard=shop" in answer


def test_a_warning_lets_through_and_says_the_same() -> None:
    with guarded("warn") as http:
        answer = judges.ask(http, next(c for c in cases.CASES if c.name == "a port made PERMISSIVE"))

    assert answer.status_code == 201 and "port-mode 80 PERMISSIVE" in answer.headers["Warning"]


def test_an_audit_lets_through_in_silence() -> None:
    with guarded("audit") as http:
        answer = judges.ask(http, next(c for c in cases.CASES if c.name == "a port made PERMISSIVE"))

    assert answer.status_code == 201 and "Warning" not in answer.headers


def test_the_keeper_goes_with_its_namespace() -> None:
    with guarded() as http:
        http.request("DELETE", "/api/v1/namespaces/shop").raise_for_status()
        gone = http.get("/apis/security.istio.io/v1/namespaces/shop/peerauthentications").json()["items"]

    assert not gone


def test_the_way_out_is_to_delete_the_bindings() -> None:
    case = next(c for c in cases.CASES if c.name == "the keeper made PERMISSIVE")
    with guarded() as http:
        bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
        http.request("DELETE", bindings, params={"labelSelector": "meshtls.dev/guard=shop"}).raise_for_status()

        assert judges.refused_by(judges.ask(http, case)) == ""

"""Faults on demand, identities, watches and large answers: what clients have to live with."""
import json
import threading

import httpx
import pytest

from meshtls.lab.api.identity import User
from tests.lone_api import Standalone

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize(("code", "reason"), [(409, "Conflict"), (429, "TooManyRequests"), (500, "InternalError")])
def test_a_fault_meets_the_requests_that_it_names_and_no_more(http: httpx.Client, api: Standalone, code: int,
                                                                     reason: str) -> None:
    api.fail(code, method="GET", path=".*/configmaps/x", times=2)
    answers = [http.get(f"{MAPS}/x") for _ in range(3)]
    api.heal()
    assert [answer.status_code for answer in answers] == [code, code, 404]
    assert answers[0].json()["reason"] == reason
    assert ("Retry-After" in answers[0].headers) == (code == 429)


def test_the_api_can_hang_and_hang_up(http: httpx.Client, api: Standalone) -> None:
    api.fail("close", path=".*/configmaps/x", times=1)
    with pytest.raises(httpx.TransportError):
        http.get(f"{MAPS}/x")
    api.fail("hang", path=".*/configmaps/y", times=1)
    with pytest.raises(httpx.ReadTimeout):
        http.get(f"{MAPS}/y", timeout=0.2)
    api.heal()
    assert http.get(f"{MAPS}/y").status_code == 404


@pytest.mark.parametrize(("header", "code"), [
    ({}, 403), ({"Authorization": "Basic eDp5"}, 403), ({"Authorization": "Bearer nope"}, 401),
    ({"Authorization": "Bearer a.b.c"}, 401)])
def test_without_a_token_there_is_nothing_but_the_version(http: httpx.Client, header: dict[str, str], code: int) -> None:
    """No token is anonymous, who may do nothing else; a wrong one is nobody."""
    bare = {"Authorization": "", **header}
    assert http.get(MAPS, headers=bare).status_code == code
    assert http.get("/version", headers=bare).status_code == (200 if code == 403 else 401)


def test_a_service_accounts_token_lives_as_long_as_the_account(http: httpx.Client) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    http.post(accounts, json={"metadata": {"name": "worker"}})
    made = http.post(f"{accounts}/worker/token", json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                                                       "spec": {}})
    bearer = {"Authorization": f"Bearer {made.json()['status']['token']}"}
    refused = http.get(MAPS, headers=bearer)
    assert refused.status_code == 403
    assert 'User "system:serviceaccount:default:worker" cannot list' in refused.json()["message"]
    http.delete(f"{accounts}/worker")
    assert http.get(MAPS, headers=bearer).status_code == 401


def test_nobody_grants_what_he_does_not_hold(http: httpx.Client, api: Standalone) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}]
    http.post(f"{rbac}/roles", json={"metadata": {"name": "granter"}, "rules": rules})
    http.post(f"{rbac}/rolebindings",
              json={"metadata": {"name": "granter"}, "subjects": [{"kind": "User", "name": "eve"}], "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "granter"}})
    wanted = {"metadata": {"name": "more"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
    refused = http.post(f"{rbac}/roles", json=wanted, headers={"Impersonate-User": "eve"})
    assert refused.status_code == 403
    assert refused.json()["message"].endswith('{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}')
    assert http.post(f"{rbac}/roles", json={**wanted, "rules": rules},
                     headers={"Impersonate-User": "eve"}).status_code == 201


def test_impersonation_is_itself_a_right(http: httpx.Client, api: Standalone) -> None:
    token = "eves-token"
    api.run(api.api.tokens.add, token, User("eve", ("system:authenticated",)))
    refused = http.get(MAPS, headers={"Authorization": f"Bearer {token}", "Impersonate-User": "bob"})
    assert refused.json()["message"] == ('users "bob" is forbidden: User "eve" cannot impersonate resource "users" in '
                                         'API group "" at the '
                                         "cluster scope")


def events(http: httpx.Client, count: int, **query: str) -> list[dict]:
    found = []
    with http.stream("GET", MAPS, params={"watch": "1", "timeoutSeconds": "20", **query}) as response:
        for line in response.iter_lines():
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


def test_a_watch_tells_what_enters_and_leaves_its_selector(http: httpx.Client) -> None:
    start = http.get(MAPS).json()["metadata"]["resourceVersion"]
    http.post(MAPS, json={"metadata": {"name": "mover", "labels": {"here": "yes"}}})
    for label in (None, "yes"):
        http.patch(f"{MAPS}/mover", json={"metadata": {"labels": {"here": label}}},
                   headers={"Content-Type": "application/merge-patch+json"})
    http.delete(f"{MAPS}/mover")
    told = events(http, 4, labelSelector="here=yes", resourceVersion=start)
    assert [event["type"] for event in told] == ["ADDED", "DELETED", "ADDED", "DELETED"]


def test_a_watch_from_a_forgotten_version_is_told_so(http: httpx.Client, api: Standalone) -> None:
    start = http.get(MAPS).json()["metadata"]["resourceVersion"]
    http.post(MAPS, json={"metadata": {"name": "forgotten"}})
    api.run(api.store.compact)
    told = events(http, 1, resourceVersion=start)
    assert (told[0]["type"], told[0]["object"]["code"], told[0]["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_initial_events_end_with_a_bookmark(http: httpx.Client) -> None:
    http.post(MAPS, json={"metadata": {"name": "initial", "labels": {"only": "me"}}})
    told = events(http, 2, labelSelector="only=me", sendInitialEvents="true", resourceVersionMatch="NotOlderThan",
                  allowWatchBookmarks="true")
    assert [event["type"] for event in told] == ["ADDED", "BOOKMARK"]
    assert told[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_sees_what_is_written_while_it_is_open(http: httpx.Client, api: Standalone) -> None:
    start = http.get(MAPS).json()["metadata"]["resourceVersion"]
    found: list[dict] = []
    with httpx.Client(base_url=api.server, verify=False, headers=http.headers) as other:
        reader = threading.Thread(target=lambda: found.extend(events(other, 50, labelSelector="open=yes",
                                                                     resourceVersion=start)))
        reader.start()
        for number in range(50):
            http.post(MAPS, json={"metadata": {"name": f"open-{number}", "labels": {"open": "yes"}}})
        reader.join(20)
    assert [event["object"]["metadata"]["name"] for event in found] == [f"open-{number}" for number in range(50)]


def test_a_large_list_comes_compressed_and_in_pages(http: httpx.Client, api: Standalone) -> None:
    def fill() -> None:
        for number in range(600):
            api.store.create("configmaps", {"metadata": {"name": f"big-{number:03}", "namespace": "kube-public"},
                                            "data": {"a": "x" * 500}})
    api.run(fill)
    path = "/api/v1/namespaces/kube-public/configmaps"
    whole = http.get(path)
    assert whole.headers["Content-Encoding"] == "gzip" and len(whole.json()["items"]) == 600
    names, token = [], ""
    while True:
        page = http.get(path, params={"limit": "250", "continue": token}).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"big-{number:03}" for number in range(600)]


def test_a_broken_request_is_the_clients_fault_and_never_a_traceback(http: httpx.Client) -> None:
    for method, path, body in (("POST", MAPS, b"\xff\xfe"), ("POST", MAPS, b"[1]"), ("POST", MAPS, b"k8s\x00\x0a\xff"),
                               ("POST", MAPS, b'{"metadata": 5}'),
                               ("POST", MAPS, b'{"metadata": {"labels": []}}'),
                               ("POST", "/api/v1/namespaces/default/pods", b'{"spec": {"containers": [5]}}'),
                               ("POST", "/api/v1/namespaces/default/pods", b'{"spec": {"containers": "x"}}'),
                               ("DELETE", f"{MAPS}/x", b"{"),
                               ("POST", "/apis/security.istio.io/v1/namespaces/default/peerauthentications",
                                b'{"apiVersion":"security.istio.io/v1","kind":"PeerAuthentication","metadata":{"name":"x"},'
                                b'"spec":[1]}')):
        answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, f"{method} {path} {body!r}: {answer.status_code} {answer.text}"
    for kind in ("application/merge-patch+json", "application/json-patch+json",
                 "application/strategic-merge-patch+json", "application/apply-patch+yaml"):
        for body in (b"", b"5", b"[5]", b"{", b'{"data": 5, "metadata": 7}', b'[{"op": "add"}]', b"a: b: c"):
            answer = http.patch("/api/v1/namespaces/default/serviceaccounts/default", content=body,
                                params={"fieldManager": "me"},
                                headers={"Content-Type": kind})
            assert answer.status_code < 500, f"{kind} {body!r}: {answer.status_code} {answer.text}"


def test_a_label_on_a_definition_of_istio_leaves_its_rules_in_force(http: httpx.Client) -> None:
    bad = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "bad"},
           "spec": {"portLevelMtls": {"8080": {"mode": "STRICT"}}}}  # ports without a selector

    def refused() -> int:
        return http.post("/apis/security.istio.io/v1/namespaces/default/peerauthentications", params={"dryRun": "All"}, json=bad).status_code

    assert refused() == 422
    labelled = http.patch("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/peerauthentications.security.istio.io",
                          headers={"Content-Type": "application/merge-patch+json"}, json={"metadata": {"labels": {"seen": "yes"}}})
    assert labelled.status_code == 200
    assert refused() == 422

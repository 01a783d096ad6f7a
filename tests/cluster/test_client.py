"""What the client asks for, and what it makes of answers."""

import json
from collections.abc import Iterator

import httpx
import pytest

from meshtls import errors
from meshtls.cluster.pool import gather
from tests.cluster.conftest import ACCESS, status


def answer(*responses: httpx.Response):
    """A handler that gives these answers in turn, and the last one for ever."""
    queue: Iterator[httpx.Response] = iter(responses[:-1])
    return lambda request: next(queue, responses[-1])


def pod(name: str, version: str = "1", uid: str = "u") -> dict:
    return {"metadata": {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": version}}


def page(*items: dict, token: str = "", version: str = "7") -> httpx.Response:
    return httpx.Response(200, json={"kind": "List", "metadata": {"resourceVersion": version, "continue": token}, "items": items})


def test_a_list_is_read_page_by_page_with_gzip(serve) -> None:
    client = serve(answer(page(pod("a"), token="more"), page(pod("b"))))

    names = [item["metadata"]["name"] for item in client.list("Pod", "shop", labels="app=x")]

    assert names == ["a", "b"]
    assert [str(r.url) for r in serve.seen] == [
        "https://api.test/api/v1/namespaces/shop/pods?limit=500&labelSelector=app%3Dx",
        "https://api.test/api/v1/namespaces/shop/pods?limit=500&labelSelector=app%3Dx&continue=more",
    ]
    assert serve.seen[0].headers["Accept-Encoding"] == "gzip"
    assert serve.seen[0].headers["Authorization"] == "Bearer t1"


def test_listed_items_say_what_they_are(serve) -> None:
    client = serve(answer(page(pod("a"))))

    assert client.list("PeerAuthentication")[0]["apiVersion"] == "security.istio.io/v1"


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (400, errors.Invalid, 3), (401, errors.Unauthorized, 3), (403, errors.Forbidden, 3), (404, errors.NotFound, 3),
        (409, errors.Conflict, 3), (412, errors.Conflict, 3), (422, errors.Invalid, 3), (429, errors.Throttled, 3),
        (500, errors.ServerFault, 3), (503, errors.ServerFault, 3), (418, errors.ServerFault, 3),
    ],
)
def test_each_failing_status_has_its_error_with_the_servers_words(serve, code, kind, exit_code) -> None:
    client = serve(answer(status(code, "no\x1b[31m luck\n" + "x" * 500)), timeout_s=1.0)

    with pytest.raises(kind) as caught:
        client.get("Pod", "a", "shop")

    assert type(caught.value) is kind
    assert "get Pod shop/a" in str(caught.value)
    assert "no [31m luck" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.status == code
    assert caught.value.exit_code == exit_code


def test_the_servers_words_are_cut_in_the_middle_for_they_end_with_what_to_do(serve) -> None:
    with pytest.raises(errors.Forbidden) as caught:
        serve(answer(status(403, f"it is wrong: {'x' * 900} (the way out: this)"))).delete("Pod", "a", "shop")

    assert "it is wrong" in caught.value.message and caught.value.message.endswith("x (the way out: this)")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(("words", "hint"), [
    ('pods is forbidden: User "me" cannot create resource "pods" in API group "" in the namespace "shop"', "ask for the role"),
    ('p "a" is forbidden: ValidatingAdmissionPolicy \'g\' with binding \'g\' denied request: it cannot be deleted', "correct what it names"),
    ('pods "a" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)', "correct what it names"),
])  # fmt: skip
def test_a_right_that_is_missing_is_asked_for_and_an_object_that_admission_refuses_corrected(serve, words, hint) -> None:
    with pytest.raises(errors.Forbidden) as caught:
        serve(answer(status(403, words))).create({"apiVersion": "v1", "kind": "Pod", **pod("a")})

    assert hint in str(caught.value) + str(getattr(caught.value, "hint", ""))


def test_a_get_is_tried_again_after_500_and_after_a_lost_connection(serve, clock) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        if len(serve.seen) == 1:
            raise httpx.ReadError("reset", request=request)
        return status(500) if len(serve.seen) < 4 else httpx.Response(200, json=pod("a"))

    assert serve(lost).get("Pod", "a", "shop") == pod("a")
    assert len(clock.waits) == 3


class _Torn(httpx.SyncByteStream):
    """A body that ends in a broken connection."""

    def __iter__(self):
        yield b'{"metadata"'
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def test_an_answer_that_breaks_off_is_asked_for_again_and_named_so(serve, clock) -> None:
    def torn(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=_Torn()) if len(serve.seen) == 1 else httpx.Response(200, json=pod("a"))

    assert serve(torn).get("Pod", "a", "shop") == pod("a")
    with pytest.raises(errors.Unreachable, match="the connection broke"):
        serve(lambda request: httpx.Response(200, stream=_Torn()), timeout_s=2.0).get("Pod", "a", "shop")


def test_retry_after_is_obeyed(serve, clock) -> None:
    client = serve(answer(status(429, headers={"Retry-After": "2"}), httpx.Response(201, json=pod("a"))))

    client.create({"apiVersion": "v1", "kind": "Pod", **pod("a")})

    assert clock.waits == [2.0]


def test_retries_end_with_the_deadline_and_the_last_answer_is_the_error(serve, clock) -> None:
    client = serve(answer(status(429, "slow down", headers={"Retry-After": "4"})), timeout_s=10.0)

    with pytest.raises(errors.Throttled, match="slow down"):
        client.get("Pod", "a", "shop")

    assert clock.waits == [4.0, 4.0]


@pytest.mark.parametrize("failure", [status(500), httpx.ReadError("reset")])
def test_a_change_whose_answer_was_lost_is_not_repeated(serve, failure) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if isinstance(failure, Exception):
            raise failure
        return failure

    with pytest.raises(errors.ClusterError):
        serve(handler).patch("PeerAuthentication", "default", "shop", {"spec": {}})

    assert len(serve.seen) == 1


def test_a_change_that_never_left_is_repeated(serve, clock) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if len(serve.seen) == 1:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=pod("a"))

    serve(handler).patch("Pod", "a", "shop", {})

    assert len(serve.seen) == 2


def test_a_server_that_was_never_there_is_given_up_soon_and_one_that_answered_before_is_waited_for(serve, clock) -> None:
    gone = httpx.ConnectError("refused")

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/first"):
            return httpx.Response(200, json=pod("first"))
        raise gone

    with pytest.raises(errors.Unreachable):
        serve(handler, timeout_s=30.0).get("Pod", "a", "shop")
    never = clock.now
    client = serve(handler, timeout_s=30.0)
    client.get("Pod", "first", "shop")
    with pytest.raises(errors.Unreachable):
        client.get("Pod", "a", "shop")

    assert never <= 3.0
    assert clock.now - never > 20.0


def test_a_server_that_does_not_answer_is_unreachable_not_refused(serve) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    with pytest.raises(errors.Unreachable, match="no answer within 5 s"):
        serve(silent, timeout_s=5.0).get("Pod", "a", "shop")


def test_an_expired_token_is_renewed_once(serve) -> None:
    import msgspec

    fresh = msgspec.structs.replace(ACCESS, authorization="Bearer t2")

    def handler(request: httpx.Request) -> httpx.Response:
        good = request.headers["Authorization"] == "Bearer t2"
        return httpx.Response(200, json=pod("a")) if good else status(401)

    assert serve(handler, reload=lambda: fresh).get("Pod", "a", "shop") == pod("a")
    with pytest.raises(errors.Unauthorized):
        serve(handler, reload=lambda: ACCESS).get("Pod", "a", "shop")


def test_an_answer_that_is_not_kubernetes_is_named_so(serve) -> None:
    with pytest.raises(errors.ServerFault, match="not Kubernetes' JSON"):
        serve(answer(httpx.Response(200, text="<html>login</html>"))).list("Pod", "shop")


def test_a_missing_resource_type_asks_for_istio(serve) -> None:
    with pytest.raises(errors.NotFound, match="is Istio installed"):
        serve(answer(httpx.Response(404, text="404 page not found"))).list("PeerAuthentication", "shop")


@pytest.mark.parametrize("name", ["../secrets/x", "a/b", "a?b", "", "a%2fb", ".."])
def test_a_name_cannot_change_the_path(serve, name) -> None:
    with pytest.raises(errors.InputError):
        serve(answer(status(500))).get("Pod", name, "shop")
    assert serve.seen == []


def test_changes_say_who_made_them_and_dry_runs_say_so(serve) -> None:
    client = serve(answer(httpx.Response(200, json=pod("a"))))

    client.patch("PeerAuthentication", "default", "shop", {"spec": {}}, dry_run=True)
    client.delete("Pod", "a", "shop", uid="u1", resource_version="9", grace_s=0)

    assert dict(serve.seen[0].url.params) == {"fieldManager": "meshtls", "dryRun": "All"}
    assert serve.seen[0].headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(serve.seen[1].content) == {
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u1", "resourceVersion": "9"},
    }


def test_permission_is_asked_of_the_server(serve) -> None:
    client = serve(answer(httpx.Response(201, json={"status": {"allowed": True}})))

    assert client.allowed("get", "pods/log", "", "shop") is True
    assert json.loads(serve.seen[0].content)["spec"]["resourceAttributes"] == {
        "verb": "get", "resource": "pods", "subresource": "log", "namespace": "shop",
    }


def event(kind: str, obj: dict) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def test_a_watch_begins_with_what_exists_and_goes_on_from_there(serve) -> None:
    stream = event("MODIFIED", pod("a", "8")) + event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    client = serve(answer(page(pod("a", "7")), httpx.Response(200, content=stream)))
    events = client.watch("Pod", "shop", timeout_s=60)

    seen = [next(events), next(events), next(events)]

    assert [(kind, obj["metadata"]["resourceVersion"]) for kind, obj in seen] == [
        ("ADDED", "7"), ("MODIFIED", "8"), ("MODIFIED", "8"),
    ]
    assert [r.url.params.get("resourceVersion") for r in serve.seen] == [None, "7", "9"]


@pytest.mark.parametrize("gone", [status(410), httpx.Response(200, content=event("ERROR", {"kind": "Status", "code": 410}))])
def test_a_watch_that_the_server_forgot_gives_the_differences(serve, gone) -> None:
    client = serve(answer(
        page(pod("same"), pod("gone"), pod("changed"), pod("again", uid="u1")), gone,
        page(pod("same"), pod("changed", "8"), pod("again", uid="u2"), pod("new")), status(403),
    ))
    events = client.watch("Pod", "shop", timeout_s=60)

    seen = [(kind, obj["metadata"]["name"]) for kind, obj in (next(events) for _ in range(9))]

    assert seen[4:] == [
        ("DELETED", "gone"), ("DELETED", "again"), ("MODIFIED", "changed"), ("ADDED", "again"), ("ADDED", "new"),
    ]
    with pytest.raises(errors.Forbidden):
        next(events)


def test_log_lines_are_cut_and_decoded_whatever_they_hold(serve) -> None:
    content = b"one\r\n" + b"x" * 100_000 + b"\n\xff\xfe\nlast"

    lines = list(serve(answer(httpx.Response(200, content=content))).logs("shop", "a", "istio-proxy", tail=3))

    assert [len(line) for line in lines] == [3, 65536, 2, 4]
    assert lines[2] == "��"
    assert dict(serve.seen[0].url.params) == {"container": "istio-proxy", "tailLines": "3"}


def test_gathering_keeps_the_order_and_our_errors_in_place() -> None:
    def ask(n: int) -> int:
        if n == 2:
            raise errors.NotFound("two")
        return n * 10

    answers = gather(ask, range(4), limit=3)

    assert [str(a) for a in answers] == ["0", "10", "two", "30"]
    with pytest.raises(ZeroDivisionError):
        gather(lambda n: 1 // n, [1, 0])

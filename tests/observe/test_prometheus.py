"""Asking a Prometheus that does not answer as it should: one line each, by whose fault it is; no secret in any of them."""

import urllib.parse
from pathlib import Path

import httpx
import pytest

from meshtls.errors import Forbidden, InputError, MeshtlsError, ServerFault, Throttled, Unauthorized, Unreachable
from meshtls.observe import prometheus as hand
from meshtls.observe.metrics import CLOCK, Query
from meshtls.observe.prometheus import Prometheus, Source, count

UP = Query("up", "up")
OK = {"status": "success", "data": {"resultType": "vector", "result": []}}
BAD = {"status": "error", "errorType": "bad_data", "error": "invalid parameter"}


def ask(answer: object, **source: str) -> list[httpx.Request]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    with Prometheus(Source(**{"url": "http://ann:hidden@prom.test:9090/base/", **source}), transport=httpx.MockTransport(handle)) as prometheus:
        prometheus.at(UP, 1.5)
    return asked


@pytest.mark.parametrize(("answer", "kind", "words"), [
    (httpx.Response(401, text="no"), Unauthorized, "credentials are not accepted"),
    (httpx.Response(403, text="no"), Forbidden, "not allowed"),
    (httpx.Response(404, text="<html>"), InputError, "is not a Prometheus: /api/v1/query answers 404"),
    (httpx.Response(302, headers={"location": "https://login.test"}), InputError, "is not a Prometheus"),
    (httpx.Response(200, text="<html>hello"), InputError, "not that of a Prometheus"),
    (httpx.Response(200, json=BAD), ServerFault, "refused the query: bad_data: invalid parameter"),
    (httpx.Response(400, json=BAD), ServerFault, "refused the query: bad_data: invalid parameter"),
    (httpx.Response(422, json={"status": "error", "errorType": "execution", "error": "too many\nsamples\x1b[2J"}), ServerFault, "too many samples"),
    (httpx.Response(503, text="busy"), ServerFault, "answered 503"),
    (httpx.Response(429, text="busy"), Throttled, "too many requests"),
    (httpx.ConnectError("[Errno 111] Connection refused"), Unreachable, "cannot be reached"),
    (httpx.ReadTimeout(""), Unreachable, "did not answer within 30 s"),
    (httpx.RemoteProtocolError("what?"), Unreachable, "cannot be reached: what?"),
])  # fmt: skip
def test_every_fault_is_one_line_without_secrets(answer: object, kind: type[MeshtlsError], words: str) -> None:
    with pytest.raises(kind) as failed:
        ask(answer)

    assert type(failed.value) is kind
    assert words in str(failed.value) and str(failed.value).isprintable()
    assert "http://prom.test:9090/base" in str(failed.value) and "hidden" not in str(failed.value)


@pytest.mark.parametrize("data", [None, {"resultType": "matrix", "result": []}, {"resultType": "scalar", "result": []}, {"result": []}, {}])
def test_a_success_without_what_was_asked_for_is_no_answer(data: object) -> None:
    with pytest.raises(InputError, match="not that of a Prometheus"):
        ask(httpx.Response(200, json={"status": "success", **({} if data is None else {"data": data})}))


@pytest.mark.parametrize("clock", ["1e300", "-1e300", "NaN", "5", "253402300799"])
def test_a_clock_that_cannot_be_is_no_answer(clock: str) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        form = dict(urllib.parse.parse_qsl(request.content.decode()))
        kind = "matrix" if request.url.path.endswith("query_range") else "vector"
        result = [{"metric": {}, "value": [1, clock]}] if form["query"] == CLOCK.text else []
        return httpx.Response(200, json={"status": "success", "data": {"resultType": kind, "result": result}})

    with (Prometheus(Source(url="http://prom.test"), transport=httpx.MockTransport(handle)) as prometheus,
          pytest.raises(ServerFault, match="its clock")):  # fmt: skip
        count(prometheus, (), ("shop",), 3600.0)


def test_an_answer_without_an_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "LIMIT", 1000)
    with pytest.raises(ServerFault, match="larger than"):
        ask(httpx.Response(200, content=b" " * 5000))


def test_credentials_come_from_files_or_the_url(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    ok = httpx.Response(200, json=OK)

    def sent(**source: str) -> str:
        return ask(ok, **source)[0].headers.get("authorization", "")

    assert sent(token_file=str(tmp_path / "secret")) == "Bearer s3cret"
    assert sent(user="bob", password_file=str(tmp_path / "secret")) == "Basic Ym9iOnMzY3JldA=="
    assert sent() == "Basic YW5uOmhpZGRlbg=="
    assert sent(url="http://prom.test") == ""


def test_a_redirect_is_not_followed_with_the_token() -> None:
    with pytest.raises(InputError):
        ask(httpx.Response(307, headers={"location": "http://elsewhere.test/"}))


@pytest.mark.parametrize("url", ["prom.test:9090", "ftp://prom.test", "http://", "http://prom.test:port", "http://[::1", "", "http://é..é", "http://xn--a.test", f"http://{'a' * 300}"])
def test_what_is_no_url_is_an_error_of_usage(url: str) -> None:
    with pytest.raises(InputError, match="no URL"), Prometheus(Source(url=url)) as prometheus:
        prometheus.at(UP, None)


@pytest.mark.parametrize(("option", "text"), [("token_file", None), ("token_file", ""), ("token_file", "two\nlines"), ("password_file", "caf\u00e9"),
                                              ("ca_file", None), ("ca_file", "no certificate")])  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(option: str, text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        Prometheus(Source(**{"url": "http://prom.test", "user": "bob", option: str(path)}))


def test_a_hurry_bounds_every_question() -> None:
    allowed: list[object] = []

    def handle(request: httpx.Request) -> httpx.Response:
        allowed.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json=OK)

    with Prometheus(Source(url="http://prom.test"), transport=httpx.MockTransport(handle)) as prometheus:
        prometheus.at(UP, None)
        prometheus.hurry(2)
        prometheus.at(UP, None)

    assert allowed[0] == 30.0 and isinstance(allowed[1], float) and 0 < allowed[1] <= 2

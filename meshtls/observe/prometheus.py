"""The hand that asks a Prometheus, or what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

    no connection, no answer in time, TLS not trusted      Unreachable
    401 Unauthorized   403 Forbidden                        429 Throttled
    a redirect, 404, or anything but its JSON               InputError: the URL is not that of a Prometheus
    its own error (bad_data, execution, timeout), 5xx       ServerFault

An answer is read to LIMIT bytes and no longer than the time given. Credentials come from files, are sent nowhere else
(redirects are not followed), and are in no message.
"""

import datetime
import math
import ssl
import time
from collections.abc import Iterable
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import httpx
import msgspec

from meshtls import __version__
from meshtls.cluster.answers import printable
from meshtls.cluster.transport import loopback
from meshtls.errors import ClusterError, Forbidden, InputError, ServerFault, Throttled, Unauthorized, Unreachable
from meshtls.observe import metrics
from meshtls.observe.counted import Counted, Proxied
from meshtls.observe.metrics import Answer, Query

LIMIT = 32 * 1024 * 1024
TIMEOUT_S = 30.0
STEPS = 120
_RESULTS = {"query": "vector", "query_range": "matrix"}
_NO_URL, _URL = "--prometheus: this is no URL of a Prometheus", "write http://HOST:PORT or https://HOST, with its path if it has one"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to ask: `token_file` holds a bearer token, `password_file` the password of `user`, `ca_file` whom to trust."""

    url: str
    token_file: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""


class Prometheus:
    """A connection to one. `name` is its URL without credentials. Raises InputError for a file or URL that cannot be used."""

    def __init__(self, source: Source, timeout_s: float = TIMEOUT_S, transport: httpx.BaseTransport | None = None) -> None:
        self._timeout_s, self._until = timeout_s, math.inf
        parts, port = _split(source.url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        self.name = urlunsplit((parts.scheme, f"{host}:{port}" if port else str(host), parts.path.rstrip("/"), "", ""))
        headers = {"User-Agent": f"meshtls/{__version__}", "Accept": "application/json"}
        login: tuple[str, str] | None = None
        if source.token_file:
            headers["Authorization"] = f"Bearer {_secret(source.token_file, '--prometheus-token-file')}"
        elif source.user:
            password = _secret(source.password_file, "--prometheus-password-file") if source.password_file else ""
            login = (source.user, password)
        elif parts.username:
            login = (unquote(parts.username), unquote(parts.password or ""))
        self._http = httpx.Client(
            headers=headers, auth=login, verify=_trust(source.ca_file), trust_env=not loopback(self.name), transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def hurry(self, seconds: float) -> None:
        """Everything that is asked from now on has to be answered within this time."""
        self._until = time.monotonic() + seconds

    def at(self, query: Query, when: float | None) -> Answer:
        """The answer as of `when`, seconds since 1970; None: now, by its own clock."""
        return self._ask("query", {"query": query.text, **({} if when is None else {"time": f"{when:.3f}"})})

    def over(self, query: Query, begin: float, end: float) -> Answer:
        """The answer over a time, at STEPS moments of it or fewer."""
        step = max((end - begin) / STEPS, 15.0)
        return self._ask("query_range", {"query": query.text, "start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:.0f}"})

    def _ask(self, what: str, form: dict[str, str]) -> Answer:
        left_s = max(0.1, min(self._timeout_s, self._until - time.monotonic()))
        try:
            status, body = self._post(f"{self.name}/api/v1/{what}", {**form, "timeout": f"{math.ceil(left_s)}s"}, left_s)
        except httpx.TimeoutException as error:
            raise Unreachable(f"Prometheus {self.name} did not answer within {left_s:g} s",
                              "a shorter --since asks for less") from error  # fmt: skip
        except (httpx.InvalidURL, UnicodeError) as error:  # a name that DNS cannot have
            raise InputError(_NO_URL, _URL) from error
        except httpx.HTTPError as error:
            raise Unreachable(f"Prometheus {self.name} cannot be reached: {printable(str(error) or type(error).__name__)}",
                              "check --prometheus, and --prometheus-ca where it has a certificate of its own") from error  # fmt: skip
        answer: Answer | None = None
        try:
            answer = metrics.decode(body)
        except InputError as error:
            if status < 300:
                raise InputError(f"{self.name}: {error.message}", error.hint) from error
        if answer is not None and answer.status == "success" and status < 300:
            if answer.data.resultType != _RESULTS[what]:  # nothing in it would read as nothing that was counted
                raise InputError(f"{self.name}: the answer is not that of a Prometheus: a success without a {_RESULTS[what]}",
                                 "is the URL that of its HTTP API, up to but without /api/v1?")  # fmt: skip
            return answer
        raise _fault(self.name, status, answer)

    def _post(self, url: str, form: dict[str, str], timeout_s: float) -> tuple[int, bytes]:
        until = time.monotonic() + timeout_s
        taken, size = [], 0
        with self._http.stream("POST", url, data=form, timeout=timeout_s) as response:
            for chunk in response.iter_bytes():
                taken.append(chunk)
                size += len(chunk)
                if size > LIMIT:
                    raise ServerFault(f"Prometheus {self.name}: the answer is larger than {LIMIT >> 20} MiB", "narrow the namespaces")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer goes on")
            return response.status_code, b"".join(taken)


def count(prometheus: Prometheus, workloads: Iterable[Proxied], namespaces: Iterable[str], window_s: float) -> Counted:
    """What it counted at these workloads in the last `window_s` seconds, by its own clock. Raises ClusterError, InputError."""
    clock = prometheus.at(metrics.CLOCK, None)
    now = next((value for _, value in clock.values), math.nan)
    if not 1e9 < now < 1e11:
        raise ServerFault(f"Prometheus {prometheus.name}: its clock says no time of these days", "ask it: vector(time())")
    seconds, namespaces = max(1, round(window_s)), tuple(namespaces)
    answers = [(query, prometheus.at(query, now)) for query in metrics.arrivals(namespaces, seconds)]
    through = [(query, prometheus.at(query, now)) for query in metrics.passed_through(seconds)]
    addresses = {address for workload in workloads for address in workload.proxies}
    targets = prometheus.at(metrics.scraped(addresses), now) if addresses else clock
    knows = prometheus.over(metrics.KNOWS, now - seconds, now)
    asked, first = _time(now), knows.first
    return Counted(
        name=prometheus.name, asked=asked, since=asked - datetime.timedelta(seconds=seconds), flows=metrics.flows(answers),
        through=metrics.senders_through(through),
        scraped=_scraped(targets) if addresses else {}, knows=None if first is None else _time(first),
        incomplete=next((answer.incomplete for answer in (*(a for _, a in (*answers, *through)), targets, knows) if answer.incomplete), ""),
    )  # fmt: skip


def _scraped(answer: Answer) -> dict[str, bool]:
    """Address -> whether one of its ports is scraped."""
    found: dict[str, bool] = {}
    for labels, value in answer.values:
        address = labels.get("instance", "").rpartition(":")[0].strip("[]")
        found[address] = found.get(address, False) or value == 1
    return found


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _fault(name: str, status: int, answer: Answer | None) -> ClusterError | InputError:
    """The error for an answer that is no success."""
    if status == 401:
        return Unauthorized(f"Prometheus {name}: the credentials are not accepted",
                            "give --prometheus-token-file, or --prometheus-user with --prometheus-password-file", status=status)  # fmt: skip
    if status == 403:
        return Forbidden(f"Prometheus {name}: not allowed", "these credentials may not query it", status=status)
    if status == 429:
        return Throttled(f"Prometheus {name}: too many requests", "wait, then run again", status=status)
    if answer is not None:
        words = printable(": ".join(filter(None, (answer.errorType, answer.error))))
        return ServerFault(f"Prometheus {name} refused the query: {words or status}", "a shorter --since asks for less", status=status)
    if status >= 500:
        return ServerFault(f"Prometheus {name} answered {status}", "try again later", status=status)
    return InputError(f"{name} is not a Prometheus: /api/v1/query answers {status}",
                      "is the URL that of its HTTP API, up to but without /api/v1? is there a log-in in front of it?")  # fmt: skip


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(_NO_URL, _URL)
    return parts, port


def _secret(path: str, option: str) -> str:
    """The one line of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(65536).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option}: cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}", "name a file that holds it") from error
    if not text.isascii() or not text.isprintable() or not text:
        raise InputError(f"{option}: {path} does not hold one line of plain characters", "write the secret into it, and nothing else")
    return text


def _trust(ca_file: str) -> ssl.SSLContext | bool:
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"--prometheus-ca: cannot use {ca_file}: {getattr(error, 'strerror', None) or 'no certificates in it'}",
                         "name a file of PEM certificates") from error  # fmt: skip

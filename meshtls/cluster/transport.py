"""One request to the API server: a deadline, retries where they are safe, bounded bodies, our errors.

    retried, within the deadline        429 for every method (the server did nothing)
                                        500, 502, 503, 504 and connections lost before the answer's end for GET
                                        connections that were never made, for every method; for FIRST_S only, as
                                        long as the server has never answered: then the address is wrong
    asked to wait                       Retry-After in seconds is obeyed, else 0.1 s doubling up to 3 s
    401                                 the credentials are read again once: plugins' and pods' tokens expire

A change whose answer was lost is not repeated: whether it happened is for the caller to look up.
Thread-safe: httpx.Client is, and the rest is values.
"""

import ipaddress
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from meshtls import __version__
from meshtls.cluster import answers
from meshtls.cluster.auth import Access
from meshtls.cluster.patience import Patience
from meshtls.errors import ServerFault

FIRST_S = 3.0
BODY_LIMIT = 256 * 1024 * 1024
_RETRIED = frozenset({500, 502, 503, 504})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `doing` says for messages what is asked: "list pods in shop"."""

    method: str
    path: str
    doing: str
    params: dict[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"


class Transport:
    """Sends requests with the credentials of `reload()`. Times are in seconds; `pause` and `clock` are for tests.

    `say` hears of answers that are awaited for long (see patience).
    """

    def __init__(
        self,
        access: Access,
        timeout_s: float = 30.0,
        *,
        reload: Callable[[], Access] | None = None,
        transport: httpx.BaseTransport | None = None,
        say: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.access, self.timeout_s = access, timeout_s
        self._reload, self._pause, self._clock = reload, pause, clock
        self._transport = transport
        self._patience = Patience(access.server, say) if say else None
        self._answered = False
        self._lock = threading.Lock()
        self._http = self._connect(access)

    def _connect(self, access: Access) -> httpx.Client:
        return httpx.Client(
            base_url=access.server,
            verify=access.tls if access.tls is not None else True,
            proxy=access.proxy,
            # Go's clients, kubectl among them, never send loopback addresses through a proxy
            trust_env=not loopback(access.server),
            transport=self._transport,
            headers=[("User-Agent", f"meshtls/{__version__}"), ("Accept-Encoding", "gzip"), *_impersonated(access)],
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )

    def close(self) -> None:
        if self._patience:
            self._patience.close()
        self._http.close()

    def request(self, call: Call, timeout_s: float | None = None) -> httpx.Response:
        """The answer, read whole. Raises ClusterError for a status of 400 and above."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        with self._open(call, limit_s, None, whole=True) as response:
            return response

    def stream(self, call: Call, read_s: float | None) -> AbstractContextManager[httpx.Response]:
        """A GET whose body is read by the caller; `read_s` bounds each wait for more bytes."""
        return self._open(call, self.timeout_s, httpx.Timeout(self.timeout_s, read=read_s))

    @contextmanager
    def _open(
        self, call: Call, limit_s: float, timeout: httpx.Timeout | None, whole: bool = False
    ) -> Iterator[httpx.Response]:
        # a stream may begin late and be well
        awaited = self._patience.asking(call.doing) if self._patience and whole else nullcontext()
        with self._translated(call.doing, limit_s):
            with awaited:
                response = self._attempts(call, limit_s, timeout, whole)
            try:
                yield response
            finally:
                response.close()

    def _attempts(self, call: Call, limit_s: float, timeout: httpx.Timeout | None, whole: bool) -> httpx.Response:
        began = self._clock()
        deadline = began + limit_s
        wait, renewed = 0.1, False
        while True:
            access, http = self.access, self._http
            headers = {"Authorization": access.authorization} if access.authorization else {}
            if call.body is not None:
                headers["Content-Type"] = call.content_type
            request = http.build_request(
                call.method, call.path, params=call.params, content=call.body, headers=headers,
                timeout=timeout or httpx.Timeout(max(deadline - self._clock(), 0.05)),
                extensions={"sni_hostname": access.server_name} if access.server_name else None,
            )
            asked = 0.0
            try:
                response = http.send(request, stream=True)
                if whole and response.status_code < 400:
                    response = _whole(response, call.doing)
            except httpx.TransportError as error:
                sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                hopeless = isinstance(error, httpx.TimeoutException) or answers.untrusted(error)
                if hopeless or (sent and call.method != "GET"):
                    raise
                failure: Exception = answers.unreachable(error, call.doing, access.server, limit_s)
                failure.__cause__ = error
                if self._patience:
                    self._patience.failed(answers.printable(str(error)))
                if not sent and not self._answered:
                    deadline = min(deadline, began + FIRST_S)
            else:
                self._answered = True
                if self._patience:
                    self._patience.answered()
                if response.status_code < 400:
                    return response
                failure = answers.fault(response.status_code, _bounded(response, 65536), call.doing, access.who)
                response.close()
                if response.status_code == 401 and not renewed and self._renew(access):
                    renewed = True
                    continue
                if response.status_code != 429 and not (call.method == "GET" and response.status_code in _RETRIED):
                    raise failure
                asked = _retry_after(response)
            pause = asked or wait * random.uniform(0.8, 1.2)
            if self._clock() + pause >= deadline:
                raise failure
            self._pause(pause)
            wait = min(wait * 2, 3.0)

    def _renew(self, used: Access) -> bool:
        """Read the credentials again; False where that changes nothing. Only one of several threads does it."""
        if self._reload is None:
            return False
        with self._lock:
            if self.access is used:
                fresh = self._reload()
                # a client certificate lives in the TLS context, so only a token shows that something changed
                if fresh.authorization == used.authorization:
                    return False
                self.access = fresh
            return True

    @contextmanager
    def _translated(self, doing: str, timeout_s: float) -> Iterator[None]:
        """httpx's errors inside become ours."""
        try:
            yield
        except httpx.TransportError as error:
            raise answers.unreachable(error, doing, self.access.server, timeout_s) from error
        except (httpx.DecodingError, httpx.StreamError) as error:
            raise ServerFault(f"{doing}: the answer cannot be read: {answers.printable(str(error))}", "run again") from error


def _whole(response: httpx.Response, doing: str) -> httpx.Response:
    """The same answer with its body, read to its end. Raises ServerFault for one that is too large."""
    try:
        body = _bounded(response, BODY_LIMIT + 1)
    finally:
        response.close()
    if len(body) > BODY_LIMIT:
        raise ServerFault(f"{doing}: the answer is larger than {BODY_LIMIT >> 20} MiB", "narrow the namespaces")
    headers = [(k, v) for k, v in response.headers.items() if k.lower() not in ("content-encoding", "content-length")]
    return httpx.Response(response.status_code, headers=headers, content=body)


def _bounded(response: httpx.Response, limit: int) -> bytes:
    """At most `limit` bytes of the body, decompressed."""
    taken, size = [], 0
    for chunk in response.iter_bytes():
        taken.append(chunk)
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(taken)[:limit]


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait; 0 where it does not say. Kubernetes sends whole seconds, never dates."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), 300.0) if text.isdecimal() and len(text) < 19 else 0.0


def _impersonated(access: Access) -> list[tuple[str, str]]:
    """The headers that ask as somebody else."""
    return [("Impersonate-User", access.as_user)] * bool(access.as_user) + [("Impersonate-Group", group) for group in access.as_groups]


def loopback(server: str) -> bool:
    """Whether a URL's host is this machine by its loopback address."""
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def decoded(body: bytes, doing: str, decode: Callable[[bytes], Any]) -> Any:
    """`decode(body)`, or ServerFault where the body is not what Kubernetes would send."""
    try:
        return decode(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise ServerFault(
            f"{doing}: the answer is not Kubernetes' JSON", "is the server URL that of an API server?"
        ) from error

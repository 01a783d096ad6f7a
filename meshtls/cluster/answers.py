"""Foreign failures become meshtls.errors here, once, with the cause chained and the server's words cut.

    no connection, no answer in time, TLS not trusted   Unreachable
    401 Unauthorized   403 Forbidden   404 NotFound   409, 412 Conflict   400, 415, 422 Invalid   429 Throttled
    5xx, 410, or what is not Kubernetes' answer          ServerFault

The server's text is used only where it is a Kubernetes `Status`; it is made printable and, beyond 300 characters, cut in the middle:
who wrote it says first what is wrong, and last what to do.
"""

import re
import ssl
from typing import Any

import httpx
import msgspec

from meshtls import errors

_CUT = 300

_BY_ADMISSION = (" is forbidden: ", " denied ")  # where it is the object that is wrong
_LACKS = re.compile(r'[Uu]ser "[^"]*" cannot ')  # how authorization says that somebody lacks a right

# status -> (class, what is wrong, what to do next)
_BY_STATUS: dict[int, tuple[type[errors.ClusterError], str, str]] = {
    400: (errors.Invalid, "the server does not take the request", ""),
    401: (errors.Unauthorized, "the credentials are not accepted", "log in again, or check the kubeconfig's user"),
    403: (errors.Forbidden, "not allowed", "ask for the role that charts/meshtls has for this verb"),
    404: (errors.NotFound, "not found", "check the name, the namespace and the context"),
    409: (errors.Conflict, "somebody else changed it, or it exists already", "look at the object, then run again"),
    410: (errors.ServerFault, "the server no longer has that version", "run again"),
    412: (errors.Conflict, "a precondition failed", "look at the object, then run again"),
    415: (errors.Invalid, "the server does not take this kind of patch", ""),
    422: (errors.Invalid, "the server does not accept the object", "correct what it names"),
    429: (errors.Throttled, "too many requests", "wait, then run again"),
}


class _Details(msgspec.Struct, frozen=True):
    name: str = ""
    kind: str = ""


class Status(msgspec.Struct, frozen=True):
    """The part of a Kubernetes `Status` that matters. `metadata` may hold a `continue` token (410 while paging)."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None
    metadata: dict[str, Any] = {}


def status_of(body: bytes) -> Status:
    """The `Status` in a body; an empty one where the body is something else."""
    try:
        status = msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Status()
    return status if status.kind == "Status" else Status()


def printable(text: str, limit: int = _CUT) -> str:
    """One line of at most `limit` characters without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = (limit - 3) // 2
    return line if len(line) <= limit else f"{line[:half]}...{line[-half:]}"


def fault(code: int, body: bytes, doing: str, who: str = "") -> errors.ClusterError:
    """The error for an answer with a failing status. `doing` says what was asked: "list pods in shop"."""
    status = status_of(body)
    kind, what, hint = _BY_STATUS.get(code, (errors.ServerFault, f"the server answered {code}", "try again later"))
    if code == 404 and not (status.details and status.details.name):
        hint = "the cluster has no such resource type: is Istio installed there, and is it the right context?"
    if code == 403 and not _LACKS.search(status.message) and any(word in status.message for word in _BY_ADMISSION):
        what, hint = "the server refuses it", "correct what it names"
    elif code == 403 and who:
        what = f"not allowed for {who}"
    words = printable(status.message) if status.kind else ""
    return kind(f"{doing}: {what}{f': {words}' if words else ''}", hint, status=code, reason=status.reason)


def untrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The failed certificate check among the causes of `error`, if that is what it was."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def unreachable(error: httpx.TransportError, doing: str, server: str, timeout_s: float) -> errors.Unreachable:
    """The error for an attempt that got no answer."""
    where = f"{doing}: {server}"
    if (check := untrusted(error)) is not None:
        return errors.Unreachable(
            f"{where}: its certificate is not trusted: {printable(check.verify_message)}",
            "check certificate-authority and tls-server-name in the kubeconfig",
        )
    if isinstance(error, httpx.TimeoutException):
        return errors.Unreachable(f"{where}: no answer within {timeout_s:g} s", "is the server up, and the network between?")
    if isinstance(error, httpx.ProxyError):
        return errors.Unreachable(f"{where}: the proxy failed: {printable(str(error))}", "check proxy-url and HTTPS_PROXY")
    words = printable(str(error)) or type(error).__name__
    if not isinstance(error, httpx.ConnectError):
        return errors.Unreachable(f"{where}: the connection broke: {words}", "run again; is a proxy or load balancer between?")
    return errors.Unreachable(f"{where}: no connection: {words}", "is it the right context, and is the server up?")

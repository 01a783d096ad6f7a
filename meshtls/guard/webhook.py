"""The hand of the guard: a validating webhook that asks the policy engine. TLS only, bounded in size, time and number.

Laws:
  1. What was STRICT at the first reading is kept, neither more nor less, until the process ends: erosion must not teach the guard, and
     a namespace that a migration makes STRICT must be able to go back.
  2. The mesh is read once and again every `refresh_s`; a change that was let through counts at once. Where a reading fails, the
     last one counts on: an answer from one that is older than STALE_S would be a guess.
  3. What cannot be judged (no reading, a kind that decides could not be read, a fault) is an HTTP error: the API server then does
     what its failurePolicy says. The webhook itself never decides that.
  4. One request is judged at a time, for the engine's memory is shared; who waits longer than WAIT_S gets an error.
"""

import base64
import contextlib
import http.server
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshtls.errors import InputError, MeshtlsError
from meshtls.guard import review
from meshtls.guard.achieved import achieved
from meshtls.guard.rules import TARGETS
from meshtls.model.mesh import Mesh
from meshtls.policy.engine import Engine
from meshtls.sources.build import laid_over
from meshtls.sources.document import Document

PATH = "/guard"
BODY = 8 << 20
"""Bytes of a request: an object may have 1.5 MB, and a review has it twice."""
READ_S, WAIT_S, STALE_S = 10.0, 8.0, 300.0
THREADS = 32
TIMEOUT_S = 9  # of the API server's call


class Unjudged(Exception):
    """Why there is no answer."""


class Judge:
    """The mesh as last read, and what is kept of it. `read` gives the mesh and why it is not whole ("" if it is)."""

    def __init__(self, read: Callable[[], tuple[Mesh, str]], namespaces: frozenset[str] | None, warn: bool) -> None:
        self._read, self._namespaces, self._warn = read, namespaces, warn
        self._lock = threading.Lock()
        self._mesh: Mesh | None = None
        self._kept: frozenset[str] = frozenset()
        self._passed = 0
        self._at, self._problem, self._failure = 0.0, "the mesh was not read yet", ""

    @property
    def kept(self) -> frozenset[str]:
        return self._kept

    def refresh(self) -> str:
        """Read the mesh; "" or why that did not succeed."""
        passed = self._passed
        try:
            mesh, problem = self._read()
            if self._passed != passed:  # what was let through meanwhile may not be in it
                mesh, problem = self._read()
            kept = frozenset(each.namespace for each in achieved(mesh, self._namespaces)[0]) if self._mesh is None else self._kept
            Engine.of(mesh).faces  # noqa: B018  worked out here, where no request waits for it
        except MeshtlsError as error:
            return self._failed(str(error))
        except Exception as error:
            return self._failed(f"a fault in meshtls: {type(error).__name__}: {error}")
        with self._lock:
            self._mesh, self._kept, self._problem, self._failure = mesh, kept, problem, ""
            self._at = time.monotonic()
        return problem

    def _failed(self, why: str) -> str:
        self._failure = why
        if self._mesh is None:
            self._problem = why
        return why

    def ready(self) -> str:
        """"" or why nothing can be judged."""
        if self._problem:
            return self._problem
        why = f": {self._failure}" if self._failure else ""
        return "" if time.monotonic() - self._at < STALE_S else f"the mesh was last read {time.monotonic() - self._at:.0f} s ago{why}"

    def answer(self, asked: review.Asked) -> dict[str, Any]:
        """The AdmissionReview to answer with. Raises Unjudged."""
        if not asked.read:
            return review.answer(asked.uid, [])
        if not self._lock.acquire(timeout=WAIT_S):
            raise Unjudged("too many requests at once")
        try:
            if problem := self.ready():
                raise Unjudged(problem)
            before = self._mesh
            assert before is not None
            if asked.operation == "DELETE":
                if review.going(before, asked.namespace):
                    return review.answer(asked.uid, [])
                after = review.without(before, asked)
            elif asked.object is None or review.is_probe(before, asked):
                return review.answer(asked.uid, [])
            else:
                after = _with(before, asked)
            findings = review.weakened(before, after, asked, self._kept)
            if not asked.dry_run and (self._warn or not findings):
                self._mesh = after
                self._passed += 1
            return review.answer(asked.uid, findings, self._warn)
        finally:
            self._lock.release()


def _with(mesh: Mesh, asked: review.Asked) -> Mesh:
    body = review.arriving(mesh, asked)
    try:
        return laid_over(mesh, [Document(body.get("apiVersion", ""), body["kind"], body)], lambda file: "")
    except InputError as error:
        raise Unjudged(error.message) from error


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection; `timeout` is the socket's."""

    timeout = READ_S
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "meshtls", ""
    server: "Server"
    until = 0.0

    def setup(self) -> None:
        self.request.settimeout(READ_S)
        self.request.do_handshake()  # in this connection's thread: who is silent holds up nobody else
        super().setup()
        self.rfile = io.BufferedReader(_Paced(self))

    def handle_one_request(self) -> None:
        self.until = time.monotonic() + READ_S  # for all of it: who sends byte by byte is silent too
        super().handle_one_request()

    def do_GET(self) -> None:
        problem = self.server.judge.ready()
        self._send(503 if problem else 200, (problem or "ok").encode(), "text/plain") if self.path == "/healthz" else self._refuse(404, "no such page")

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path.partition("?")[0] != PATH:
            self._refuse(404, f"reviews are answered at {PATH}")
        elif not size.isascii() or not size.isdigit():
            self._refuse(411, "a length is needed")
        elif int(size) > BODY:
            self._refuse(413, f"at most {BODY} bytes")
        else:
            self._review(self.rfile.read(int(size)))

    def _review(self, body: bytes) -> None:
        try:
            asked = msgspec.json.decode(body, type=review.Review).request
        except (msgspec.DecodeError, RecursionError) as error:
            self._refuse(400, f"no AdmissionReview: {error}")
            return
        try:
            said = self.server.judge.answer(asked)
        except Unjudged as error:
            self._refuse(503, str(error))
        except Exception as error:
            self._refuse(500, f"a fault in meshtls: {type(error).__name__}: {error}")
        else:
            if not self.server.asked:
                self.server.asked = True
                self.server.say("the API server asks: its first review is answered")
            if said["response"].get("status") or said["response"].get("warnings"):
                self.server.say(f"{asked.operation} {asked.kind.get('kind')} {asked.namespace}/{asked.named}: {json.dumps(said['response'])}")
            self._send(200, json.dumps(said).encode(), "application/json")

    def _refuse(self, code: int, why: str) -> None:
        self.close_connection = True
        self._send(code, why.encode("utf-8", "backslashreplace")[:500], "text/plain")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.request.settimeout(READ_S)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what is worth a line is said by `say`."""


class _Paced(io.RawIOBase):
    """What a connection sends, until its request's time is over."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._handler.until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._handler.request.settimeout(left_s)
        return int(self._handler.request.recv_into(buffer))


class Server(http.server.ThreadingHTTPServer):
    """Serves reviews over TLS. At most THREADS connections are answered at a time; more are closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, judge: Judge, say: Callable[[str], None]) -> None:
        self.judge, self.say, self.asked = judge, say, False
        self._context, self._free = context, threading.BoundedSemaphore(THREADS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        raw, address = super().get_request()
        return self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up, or speaks no TLS, is no news."""


@contextlib.contextmanager
def serving(server: Server, refresh_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Within: requests are answered and the mesh is read again and again, in threads that end with the block."""
    done = threading.Event()

    def again() -> None:
        while not done.wait(refresh_s):
            if problem := server.judge.refresh():
                say(f"the mesh could not be read again: {problem}")

    threads = [threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True), threading.Thread(target=again, daemon=True)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        server.shutdown()
        server.server_close()


def configuration(client: dict[str, Any], authority_pem: str, failure_policy: str) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration that has an API server ask. `client` is a url or a service."""
    rules = [
        {"apiGroups": [r.group], "apiVersions": ["*"], "operations": sorted(t.operations),
         "resources": [r.plural], "scope": "*"}
        for t in TARGETS for r in t.resources
    ]  # fmt: skip
    hook = {
        "name": "guard.meshtls.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": failure_policy, "timeoutSeconds": TIMEOUT_S,
        "clientConfig": {**client, "caBundle": base64.b64encode(authority_pem.encode()).decode()}, "rules": rules,
        "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]},
    }  # fmt: skip
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": review.CONFIGURATION, "labels": {"app.kubernetes.io/managed-by": "meshtls"}}, "webhooks": [hook]}  # fmt: skip

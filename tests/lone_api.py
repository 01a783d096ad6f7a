"""The lab's API alone, without nodes: a thread with its own event loop, a free loopback port, throw-away certificates
and tokens, and faults on demand.

    with standalone() as api:             # api.kubeconfig is a path; what belongs to the API is called through api.run
        subprocess.run(["kubectl", "--kubeconfig", api.kubeconfig, "get", "ns"])
"""
import asyncio
import contextlib
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trustme
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from meshtls.lab import state
from meshtls.lab.api import answers, status
from meshtls.lab.api.app import Api
from meshtls.lab.api.identity import ADMIN, Tokens, User
from meshtls.lab.api.logs import LogSource
from meshtls.lab.api.store import Event, Store

T = TypeVar("T")
_REASONS = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 429: "TooManyRequests", 500: "InternalError",
            503: "ServiceUnavailable"}


class Fault(msgspec.Struct):
    """`method` and `path` (regular expressions, whole match; path without query) choose requests; `times` how many (0:
    all). `act`: a status code, "hang" or "close"."""

    act: int | str
    method: str = ".*"
    path: str = ".*"
    times: int = 0
    hits: int = 0


class Faulty(Api):
    """An API that refuses, fails, hangs or hangs up on the requests that a rule of `faults` names."""

    def __init__(self, store: Store, **options: Any) -> None:
        super().__init__(store, **options)
        self.faults: list[Fault] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = next((one for one in self.faults if scope["type"] == "http" and re.fullmatch(one.method, scope["method"])
                      and re.fullmatch(one.path, scope["path"]) and (not one.times or one.hits < one.times)), None)
        if fault is None:
            return await super().__call__(scope, receive, send)
        fault.hits += 1
        if fault.act == "hang":
            await self.closing.wait()
        elif isinstance(fault.act, str):  # an answer that begins and does not end: the server then closes the connection
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        else:
            error = status.ApiError(fault.act, _REASONS.get(fault.act, ""), f"fault on demand: {fault.act}",
                                    details={"retryAfterSeconds": 1} if fault.act in (429, 503) else None)
            await answers.refused(error, Request(scope, receive))(scope, receive, send)


class Standalone:
    """A running API. Store and API belong to its thread: use `run`."""

    def __init__(self, api: Faulty, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.api, self.store = api, api.store
        self._loop, self._folder = loop, folder
        self.kubeconfig, self.server, self.ca, self.token = "", "", "", ""

    def run(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call something of the API's in its own thread and give back what it gives."""
        async def inside() -> T:
            return call(*arguments, **named)
        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(30)

    def fail(self, act: int | str, **more: Any) -> None:
        """From now on a fault meets the requests that it names (see Fault)."""
        self.run(self.api.faults.append, Fault(act, **more))

    def heal(self) -> None:
        self.run(self.api.faults.clear)

    def kubeconfig_for(self, user: User) -> str:
        """A kubeconfig of another user."""
        token = secrets.token_urlsafe(24)
        self.run(self.api.tokens.add, token, user)
        path = self._folder / f"kubeconfig-{len(list(self._folder.iterdir()))}"
        state.write(path, state.kubeconfig(self.server, Path(self.ca), token))
        return str(path)


def caretaker(store: Store) -> Callable[[Event], None]:
    """The least that namespaces need when no controllers run: a default service account, and an end when they are
    deleted."""
    def hear(event: Event) -> None:
        if event.resource != "namespaces" or event.type == "DELETED":
            return
        name = event.object["metadata"]["name"]
        if "deletionTimestamp" not in event.object["metadata"]:
            if event.type == "ADDED" and store.get("serviceaccounts", name, "default") is None:
                store.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount",
                                                 "metadata": {"name": "default", "namespace": name}})
            return
        for resource in store.resources():
            for obj in store.list(resource, name) if resource != "namespaces" else ():
                store.remove(resource, name, obj["metadata"]["name"])
        store.mutate("namespaces", "", name, lambda obj: obj["spec"].pop("finalizers", None))
    return hear


@contextlib.contextmanager
def standalone(*, log_source: LogSource | None = None, caretaking: bool = True,
               prepare: Callable[[Store], None] = lambda store: None,
               **options: Any) -> Iterator[Standalone]:
    """Run an API in a thread until the block ends. `prepare` fills the store first; `options` go to Api."""
    ready = threading.Event()
    held: dict[str, Any] = {}
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="meshtls-api-") as directory:
        folder = Path(directory)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.crt")
        authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc").private_key_and_cert_chain_pem.write_to_path(
            folder / "server.pem")

        async def main() -> None:
            store = Store()
            api = Faulty(store, tokens=Tokens(store, {token: ADMIN}), log_source=log_source, **options)
            if caretaking:
                store.subscribe(caretaker(store))
            for name in ("default", "kube-system", "kube-public", "istio-system"):
                store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace",
                                            "spec": {"finalizers": ["kubernetes"]}, "status": {
                    "phase": "Active"}, "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
            prepare(store)
            held["standalone"] = Standalone(api, asyncio.get_running_loop(), folder)

            def started(port: int) -> None:
                held["port"] = port
                ready.set()
            await api.serve("127.0.0.1", 0, str(folder / "server.pem"), str(folder / "server.pem"), started=started)

        def thread() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                held["error"] = error
            ready.set()
        worker = threading.Thread(target=thread, name="lab-api", daemon=True)
        worker.start()
        ready.wait(30)
        if "error" in held or "port" not in held:
            raise AssertionError(f"the API did not start: {held.get('error', 'no answer within 30 s')}")
        running: Standalone = held["standalone"]
        running.server, running.ca, running.token = f"https://127.0.0.1:{held['port']}", str(folder / "ca.crt"), token
        running.kubeconfig = str(folder / "kubeconfig")
        state.write(folder / "kubeconfig", state.kubeconfig(running.server, folder / "ca.crt", token))
        try:
            yield running
        finally:
            running.run(running.api.stop)
            worker.join(10)

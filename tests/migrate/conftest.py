"""A migration without a cluster: an API server of three kinds in memory, a witness that is told what to see, a line that can be cut."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from meshtls.cluster.auth import Access
from meshtls.cluster.client import Client
from meshtls.cluster.transport import Transport
from meshtls.migrate.gate import Evidence, Refused
from meshtls.migrate.journal import Journal, begin
from meshtls.migrate.plan import Plan, Stage
from meshtls.migrate.run import Runner
from meshtls.migrate.store import Store
from meshtls.model.check import Check, Status

ACCESS = Access(server="https://127.0.0.1:6443", namespace="shop", who="user ann", tls=None, authorization="Bearer t")
PASSED = Check(id="probe/x", title="a probe", status=Status.PASS)
BILLING = Refused(client="Deployment/legacy/billing", name="legacy/billing", ref="Deployment/legacy/billing",
                  server="Deployment/shop/cart", port=8080, at="2026-01-01T00:00:00Z")  # fmt: skip


class Died(BaseException):
    """The process is no more: nothing after this runs."""


class Api:
    """PeerAuthentications, ConfigMaps and Leases with versions, preconditions and dry runs, as an API server keeps them.

    `dies_at` is the number of the request at which the caller's process dies, before it is served or, with `served`, after;
    `interrupted_at` that of a Ctrl-C, which comes once.
    `refuse(method, path, dry_run)` may give a status to answer instead, with `words`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version, self.count = 0, 0
        self.dies_at, self.served, self.interrupted_at = 0, False, 0
        self.refuse: Callable[[str, str, bool], int] = lambda method, path, dry_run: 0
        self.words = "no"
        self.log: list[tuple[str, str, bool]] = []

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Store an object as somebody else would."""
        meta = obj["metadata"]
        path = f"/apis/security.istio.io/v1/namespaces/{meta['namespace']}/peerauthentications/{meta['name']}"
        old = self.objects.get(path)
        return self._store(path, obj, old["metadata"]["uid"] if old else str(uuid.uuid4()))

    def policies(self, namespace: str = "shop") -> dict[str, dict[str, Any]]:
        """name -> (uid, spec), of what is there."""
        return {o["metadata"]["name"]: o for p, o in self.objects.items() if f"/{namespace}/peerauthentications/" in p}

    def specs(self) -> dict[str, tuple[str, Any]]:
        """What a rollback must restore: name -> (uid, spec)."""
        return {name: (o["metadata"]["uid"], o.get("spec")) for name, o in self.policies().items()}

    def _store(self, path: str, obj: dict[str, Any], uid: str) -> dict[str, Any]:
        self.version += 1
        held = json.loads(json.dumps(obj))
        held["metadata"].update(uid=uid, resourceVersion=str(self.version))
        self.objects[path] = held
        return held

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        if self.dies_at and self.count > self.dies_at:
            raise Died
        if self.dies_at == self.count and not self.served:
            raise Died
        if self.interrupted_at == self.count and not self.served:
            raise KeyboardInterrupt
        answer = self._answer(request)
        if self.dies_at == self.count:
            raise Died
        if self.interrupted_at == self.count:
            raise KeyboardInterrupt
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        body = json.loads(request.content) if request.content else {}
        dry_run = "dryRun" in request.url.params or bool(body.get("dryRun"))
        self.log.append((method, path, dry_run))
        if code := self.refuse(method, path, dry_run):
            return status(code, self.words)
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
        if method == "GET" and path.endswith(("/peerauthentications", "/configmaps")):
            return httpx.Response(200, json={"metadata": {"resourceVersion": str(self.version)},
                                             "items": [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]})  # fmt: skip
        held = self.objects.get(path)
        if method == "POST" and held is not None:
            return status(409)
        if method != "POST" and held is None:
            return status(404)
        if method == "GET":
            return httpx.Response(200, json=held)
        wanted = body.get("preconditions", {}) if method == "DELETE" else body["metadata"] if method == "PUT" else {}
        if held is not None and any(wanted.get(key) not in (None, held["metadata"][key]) for key in ("resourceVersion", "uid")):
            return status(409)
        if method == "DELETE":
            if not dry_run:
                del self.objects[path]
            return httpx.Response(200, json={"kind": "Status", "status": "Success"})
        if dry_run:
            return httpx.Response(200, json=body)
        return httpx.Response(200, json=self._store(path, body, held["metadata"]["uid"] if held else str(uuid.uuid4())))


def status(code: int, message: str = "no") -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "status": "Failure", "code": code, "message": message})


class Eyes:
    """A witness that gives what the test says: stage id -> evidence, or what is raised; `seeing` is called while it soaks."""

    def __init__(self, **told: Evidence | BaseException) -> None:
        self.told, self.seen, self.settled = told, [], 0
        self.seeing: Callable[[str], None] = lambda stage: None

    def listen(self, stage: Stage) -> None:
        self.seen.append(f"listen {stage.id}")

    def gather(self, stage: Stage, soak_s: float, accepted: tuple[str, ...], tick: Callable[[], None]) -> Evidence:
        self.seen.append(f"gather {stage.id}")
        self.seeing(stage.id)
        tick()
        told = self.told.get(stage.id, HOLDS)
        if isinstance(told, BaseException):
            raise told
        return told

    def settle(self) -> None:
        self.settled += 1


HOLDS = Evidence(soaked_s=60, needed_s=60, proxies=1, probes=(PASSED,))
BROKEN = Evidence(soaked_s=1, needed_s=60, proxies=1, refused=(BILLING,))
UNKNOWN = Evidence(soaked_s=60, needed_s=60, proxies=1, deaf=("shop/cart-1: forbidden",), probes=(PASSED,))


def policy(name: str, spec: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": namespace, "labels": {"team": "a"}}, "spec": spec}  # fmt: skip


class World:
    """One cluster. Each `process()` is a client of its own, as after a crash on another machine."""

    def __init__(self) -> None:
        self.api, self.clients, self.said = Api(), [], []
        self.waited: list[float] = []

    def client(self) -> Client:
        transport = Transport(ACCESS, 30.0, transport=httpx.MockTransport(self.api), pause=self.waited.append,
                              clock=lambda: sum(self.waited))  # fmt: skip
        self.clients.append(Client(transport))
        return self.clients[-1]

    def store(self, client: Client | None = None) -> Store:
        return Store(client or self.client(), "shop", pause=self.waited.append)

    def runner(self, eyes: Eyes, store: Store, client: Client) -> Runner:
        return Runner(client, store, eyes, say=self.said.append, now=lambda: "2026-01-01T00:00:00Z", pause=self.waited.append,
                      clock=lambda: sum(self.waited))  # fmt: skip

    def start(self, stages: tuple[Stage, ...], eyes: Eyes | None = None) -> Journal:
        """Begin a run and carry it as far as it goes."""
        client = self.client()
        store = self.store(client)
        journal = begin(Plan(namespace="shop", was="PERMISSIVE", stages=stages), run="r1", now="2026-01-01T00:00:00Z", who="ann@here",
                        soak_s=60, forced=False, accepted=())  # fmt: skip
        store.save(journal)
        return self.runner(eyes or Eyes(), store, client).carry(journal)

    def resume(self, change: Callable[[Journal], Journal] = lambda journal: journal, eyes: Eyes | None = None) -> Journal | None:
        """Another process goes on with what the journal says; None where there is none."""
        client = self.client()
        store = self.store(client)
        journal = store.load()
        if journal is None:
            return None
        changed = change(journal)
        if changed is not journal:
            store.save(changed)
        return self.runner(eyes or Eyes(), store, client).carry(changed)


CANARY = Stage(id="canary", policy="meshtls-canary-cart", create=True, mode="STRICT", selector={"app": "cart"}, temporary=True,
               workloads=("Deployment/shop/cart",))  # fmt: skip
STRICT, PERMISSIVE_SPEC = {"mtls": {"mode": "STRICT"}}, {"mtls": {"mode": "PERMISSIVE"}}
NAMESPACE = Stage(id="namespace", policy="default", create=True, mode="STRICT")
OF_POLICIES = "/peerauthentications"


def edit(world: World, name: str, spec: dict[str, Any]) -> None:
    """Somebody else changes a policy in place."""
    held = world.api.policies()[name]
    world.api.put({**held, "spec": spec})


def wide(world: World, mode: str = "PERMISSIVE") -> Stage:
    uid = world.api.put(policy("default", {"mtls": {"mode": mode}}))["metadata"]["uid"]
    return msgspec.structs.replace(NAMESPACE, create=False, uid=uid, found=mode)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for client in made.clients:
        client.close()

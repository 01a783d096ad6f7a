"""A store with controllers, a clock that is turned by hand, and a kubelet that does as it is told. Nothing here waits
for real time."""

import asyncio
import datetime
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers import Controllers
from meshtls.lab.controllers.objects import text
from meshtls.lab.node import register

START = datetime.datetime(2030, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)


class Clock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = START
        self._timers: dict[int, tuple[datetime.datetime, Callable[[], object]]] = {}
        self._count = 0

    def now(self) -> datetime.datetime:
        return self.time

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Callable[[], object]:
        self._count += 1
        number = self._count
        self._timers[number] = (self.time + datetime.timedelta(seconds=delay_s), call)
        return lambda: self._timers.pop(number, None)

    def next_due(self, until: datetime.datetime) -> Callable[[], object] | None:
        """Move to the next timer that is due by `until` and take it."""
        due, number = min(((due, number) for number, (due, _) in self._timers.items()), default=(until, 0))
        if not number or due > until:
            return None
        self.time = max(self.time, due)
        return self._timers.pop(number)[1]


async def settle() -> None:
    """Until nothing is left to do but wait for a timer or an event: every other task of the loop has ended."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


class Cluster:
    """What a test holds. Every write is followed by everything that it sets off."""

    def __init__(self, nodes: tuple[str, ...] = ("lab-1",), *, auto: bool = True) -> None:
        self.clock = Clock()
        self.store = Store(now=lambda: text(self.clock.now()))
        self.refuse: Callable[[dict[str, Any]], str] = lambda pod: ""
        self.auto = auto
        """Whether pods become ready as soon as they are bound, and go as soon as they are deleted."""
        self._numbers = 0
        self._loop = asyncio.new_event_loop()
        self.store.admitter = self._admit
        self.controllers = Controllers(self.store, "MESH ROOT", api_ca_pem="API ROOT", clock=self.clock)
        self.store.subscribe(self._kubelet)
        for name in nodes:
            self.store.create("nodes", register.node(name, "10.0.0.1", self.store.now()))
        self._loop.run_until_complete(self.controllers.start())
        self.namespace("shop")

    def close(self) -> None:
        self._loop.run_until_complete(self.controllers.stop())
        self._loop.close()

    # acting

    def do(self, act: Callable[[], Any]) -> Any:
        async def inside() -> Any:
            outcome = act()
            await settle()
            return outcome

        return self._loop.run_until_complete(inside())

    def namespace(self, name: str) -> None:
        self.create(
            "namespaces",
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name},
                "spec": {"finalizers": ["kubernetes"]},
            },
        )

    def create(self, resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.do(lambda: self._store(resource, obj))
        return made

    def change(
        self, resource: str, name: str, change: Callable[[dict[str, Any]], Any], namespace: str = "shop"
    ) -> None:
        self.do(lambda: self.store.mutate(resource, namespace, name, lambda obj: (change(obj), None)[1]))

    def delete(self, resource: str, name: str, namespace: str = "shop") -> None:
        self.do(lambda: self.store.delete(resource, namespace, name))

    def advance(self, seconds: float) -> None:
        until = self.clock.time + datetime.timedelta(seconds=seconds)
        while (timer := self.clock.next_due(until)) is not None:
            self.do(timer)
        self.clock.time = until

    def ready(self, name: str, value: bool = True) -> None:
        self.change("pods", name, lambda pod: self._run(pod, value))

    def finish(self, name: str, phase: str = "Succeeded") -> None:
        self.change("pods", name, lambda pod: pod["status"].update(phase=phase, conditions=[]))

    def gone(self, pod: str) -> None:
        """The kubelet is done with a deleted pod."""
        self.do(lambda: self.store.remove("pods", "shop", pod))

    # looking

    def get(self, resource: str, name: str, namespace: str = "shop") -> dict[str, Any]:
        found = self.store.get(resource, namespace, name)
        assert found is not None, f"{resource} {namespace}/{name} is not there; there are {self.names(resource)}"
        return found

    def names(self, resource: str, namespace: str = "shop", **labels: str) -> list[str]:
        return [obj["metadata"]["name"] for obj in self.store.list(resource, namespace, labels)]

    def pods(self, **labels: str) -> list[str]:
        """Pods that have not ended and are not going."""
        return [
            pod["metadata"]["name"]
            for pod in self.store.list("pods", "shop", labels)
            if "deletionTimestamp" not in pod["metadata"]
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ]

    def events(self, about: str = "", namespace: str = "shop") -> list[tuple[str, str]]:
        return [
            (event["reason"], event["message"])
            for event in sorted(self.store.list("events", namespace), key=lambda one: one["metadata"]["name"][-16:])
            if not about or event["involvedObject"]["name"] == about
        ]

    def reasons(self, about: str = "") -> list[str]:
        return [reason for reason, _ in self.events(about)]

    # the API and the kubelet

    def _admit(self, resource: str, obj: dict[str, Any], user: str, done: Callable[[Any], None]) -> None:
        why = self.refuse(obj)
        done(PermissionError(why) if why else self._store(resource, obj))

    def _store(self, resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        """What comes in by the API: a Job has its selector and its pods' labels."""
        made = self.store.create(resource, obj)
        if resource != "jobs.batch":
            return made
        uid, name = made["metadata"]["uid"], made["metadata"]["name"]
        labels = {f"{prefix}{key}": value for prefix in ("batch.kubernetes.io/", "")
                  for key, value in (("controller-uid", uid), ("job-name", name))}  # fmt: skip

        def complete(job: dict[str, Any]) -> None:
            job["spec"]["selector"] = {"matchLabels": {"controller-uid": uid}}
            job["spec"]["template"]["metadata"]["labels"] |= labels

        completed: dict[str, Any] = self.store.mutate(resource, obj["metadata"]["namespace"], name, complete) or made
        return completed

    def _kubelet(self, event: Event) -> None:
        if event.resource != "pods" or event.type == "DELETED" or not self.auto:
            return
        pod, key = event.object, ("shop", event.object["metadata"]["name"])
        if "deletionTimestamp" in pod["metadata"]:
            if pod["spec"].get("nodeName") and not pod["metadata"].get("finalizers"):
                self.store.remove("pods", pod["metadata"]["namespace"], key[1])
        elif pod["spec"].get("nodeName") and "podIP" not in (pod.get("status") or {}):
            self.store.mutate("pods", pod["metadata"]["namespace"], key[1], lambda one: self._run(one, True))

    def _run(self, pod: dict[str, Any], ready: bool) -> None:
        status = pod.setdefault("status", {})
        if "podIP" not in status:
            self._numbers += 1
            status["podIP"] = f"10.77.0.{self._numbers}"
        others = [one for one in status.get("conditions") or () if one["type"] != "Ready"]
        status.update(
            phase="Running",
            conditions=[*others, {"type": "Ready", "status": str(ready), "lastTransitionTime": text(self.clock.now())}],
        )


def config_map(name: str, namespace: str = "shop", **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


def workload(kind: str, name: str = "web", api: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    """A workload of one container, labelled app=<name>."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def image(value: str) -> Callable[[dict[str, Any]], None]:
    """A change of a workload's template."""

    def change(obj: dict[str, Any]) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = value

    return change


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod of one container, labelled app=web."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}], **spec},
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A Service of the pods labelled app=web."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }

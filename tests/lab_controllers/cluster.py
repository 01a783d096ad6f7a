"""A store with controllers, a clock that is turned by hand, and a kubelet that does as it is told. Nothing here waits
for real time."""

import asyncio
import datetime
import random
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers import Controllers, submitting
from meshtls.lab.controllers.clock import text

START = datetime.datetime(2030, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)


class Clock:
    """Time that moves only by `advance`."""

    def __init__(self) -> None:
        self.time = START
        self._timers: list[tuple[datetime.datetime, int, Timer]] = []
        self._count = 0

    def now(self) -> datetime.datetime:
        return self.time

    def call_later(self, delay_s: float, call: Callable[[], None]) -> "Timer":
        timer = Timer(call)
        self._count += 1
        self._timers.append((self.time + datetime.timedelta(seconds=delay_s), self._count, timer))
        return timer

    def next_due(self, until: datetime.datetime) -> "Timer | None":
        """Move to the next timer that is due by `until` and take it."""
        self._timers = sorted((one for one in self._timers if not one[2].cancelled), key=lambda one: one[:2])
        if not self._timers or self._timers[0][0] > until:
            return None
        due, _, timer = self._timers.pop(0)
        self.time = max(self.time, due)
        return timer


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cancelled = call, False

    def cancel(self) -> None:
        self.cancelled = True


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
        admitted = submitting(self.store)

        async def create_pod(pod: dict[str, Any]) -> dict[str, Any]:
            if why := self.refuse(pod):
                raise PermissionError(why)
            return await admitted(pod)

        self.controllers = Controllers(
            self.store, create_pod, "MESH ROOT", nodes, self.clock, api_ca_pem="API ROOT", chance=random.Random(7)
        )
        self.store.subscribe(self._kubelet)
        self._loop.run_until_complete(self.controllers.start())
        self.namespace("shop")

    def close(self) -> None:
        self._loop.run_until_complete(self.controllers.stop())
        self._loop.close()

    # acting

    def do(self, act: Callable[[], Any]) -> Any:
        async def inside() -> Any:
            outcome = act()
            await self.controllers.settle()
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
        made: dict[str, Any] = self.do(lambda: self.store.create(resource, obj))
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
            self.do(timer.call)
        self.clock.time = until

    def ready(self, name: str, value: bool = True) -> None:
        self.change("pods", name, lambda pod: self._run(pod, value))

    def finish(self, name: str, phase: str = "Succeeded") -> None:
        self.change("pods", name, lambda pod: pod["status"].update(phase=phase, conditions=[]))

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

    # the kubelet

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

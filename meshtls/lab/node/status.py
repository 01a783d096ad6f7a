"""A pod's status from what its containers do. Pure: records and the old status in, the new status out."""
from collections.abc import Sequence
from typing import Any

Obj = dict[str, Any]
INIT, SIDECAR, APP = "init", "sidecar", "app"


class Record:
    """What is known of one container. `kind` is init, sidecar (an init container that stays) or app."""

    def __init__(self, spec: Obj, kind: str) -> None:
        self.spec = spec
        self.kind = kind
        self.name: str = spec["name"]
        self.image: str = spec.get("image", "")
        self.state: Obj = {"waiting": {"reason": "PodInitializing"}}
        self.last: Obj = {}
        self.restarts = 0
        self.started = False
        self.ready = False
        self.id = ""

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def code(self) -> int | None:
        """The exit code, None while it has not ended."""
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    def waits(self, reason: str, message: str = "") -> None:
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.started = self.ready = False

    def runs(self, now: str) -> None:
        self.state = {"running": {"startedAt": now}}

    def ends(self, code: int, reason: str, now: str, message: str = "") -> None:
        """`code` as the shell counts: 128 + signal for a signal."""
        begun = self.state.get("running", {}).get("startedAt", now)
        self.state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now, "containerID": self.id,
                                     **({"message": message} if message else {})}}
        self.started = False
        self.ready = self.kind == INIT and code == 0

    def status(self) -> Obj:
        out: Obj = {"name": self.name, "state": self.state, "lastState": self.last, "ready": self.ready, "restartCount": self.restarts,
                    "image": self.image, "imageID": "", "started": self.started}
        if self.id:
            out["containerID"] = self.id
        return out


def phase(records: Sequence[Record], policy: str) -> str:
    """Pending, Running, Succeeded or Failed (GetPodPhase)."""
    apps = [r for r in records if r.kind == APP]
    inits = [r for r in records if r.kind == INIT]
    if any(r.code not in (None, 0) for r in inits) and policy == "Never":
        return "Failed"
    if not all(r.code == 0 for r in inits) or any(r.kind == SIDECAR and not r.started and not r.restarts and r.code is None for r in records):
        if not any(r.running or r.code is not None for r in apps):
            return "Pending"
    codes = [r.code for r in apps]
    if all(code is not None for code in codes) and policy != "Always":
        if all(code == 0 for code in codes):
            return "Succeeded"
        if policy == "Never":
            return "Failed"
    begun = [r.running or r.code is not None or bool(r.last) for r in apps]
    return "Running" if all(begun) else "Pending"


def build(old: Obj, records: Sequence[Record], policy: str, now: str, gates: list[str], addresses: Obj, failure: Obj | None, generation: int) -> Obj:
    """The new status of the pod's `generation`. `addresses`: hostIP, podIP, startTime... ; `failure` (phase, reason, message) overrides, for
    evicted pods."""
    out = {**old, **addresses, "phase": phase(records, policy), "observedGeneration": generation}
    if failure:
        out |= failure
    inits = [r for r in records if r.kind != APP]
    apps = [r for r in records if r.kind == APP]
    over = out["phase"] in ("Succeeded", "Failed")
    ready = not over and all(r.ready for r in apps) and all(r.ready for r in records if r.kind == SIDECAR)
    unready = [r.name for r in [*inits, *apps] if not r.ready and r.kind != INIT]
    complete = all(r.code == 0 for r in inits if r.kind == INIT) and all(r.started or r.restarts or over for r in inits if r.kind == SIDECAR)
    done: Obj = {"status": "False", "reason": "PodCompleted"}
    waits: Obj = {"status": "False", "reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    conditions = {c["type"]: c for c in old.get("conditions") or []}
    missing = [gate for gate in gates if conditions.get(gate, {}).get("status") != "True"]
    gated: Obj = {"status": "False", "reason": "ReadinessGatesNotReady",
                  "message": f"the status of pod readiness gate \"{missing[0]}\" is not \"True\", but False"} if missing else {}
    yes: Obj = {"status": "True"}
    incomplete: Obj = {"status": "False", "reason": "ContainersNotInitialized",
                       "message": f"containers with incomplete status: [{' '.join(r.name for r in inits if not (r.code == 0 or r.started))}]"}
    contained = yes if ready else (done if over and out["phase"] == "Succeeded" else waits)
    wanted = {
        "PodReadyToStartContainers": yes,
        "Initialized": ({**yes, "reason": "PodCompleted"} if out["phase"] == "Succeeded" else yes) if complete else incomplete,
        "Ready": gated if ready and missing else contained,
        "ContainersReady": contained,
    }
    for kind, value in wanted.items():
        before = conditions.get(kind, {})
        since = before["lastTransitionTime"] if before.get("status") == value["status"] else now
        conditions[kind] = {"type": kind, "lastProbeTime": None, "lastTransitionTime": since, "observedGeneration": generation, **value}
    conditions.setdefault("PodScheduled", {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now,
                                           "observedGeneration": generation})
    out["conditions"] = list(conditions.values())
    out["containerStatuses"] = [r.status() for r in apps]
    if inits:
        out["initContainerStatuses"] = [r.status() for r in inits]
    return out

"""Job: pods until enough of them have succeeded. `jobstate` says where it stands; this module makes, counts and
removes the pods.

Whether a pod has ended is the node's to say: native sidecars do not hold a pod open, a classic sidecar does, as in a
real cluster.
"""

import datetime
from collections.abc import Iterator

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import conditions, jobstate, pods
from meshtls.lab.controllers.controller import Hands, Workload
from meshtls.lab.controllers.jobstate import INDEX, End, Tally, Verdict
from meshtls.lab.controllers.objects import Obj, controller_of, name_of, parse, set_counts


class Jobs(Workload):
    name, resource, kind = "job-controller", "jobs.batch", "Job"
    watches = frozenset({resource, "pods"})

    def __init__(self, hands: Hands) -> None:
        super().__init__(hands)
        self._ends: dict[str, dict[str, End | None]] = {}
        """How each pod of a job ended, by their uids; None for one that was not wanted any more."""

    def keys(self, event: Event) -> list[tuple[str, str]]:
        if event.resource == "pods":
            self._note(event.object, gone=event.type == "DELETED")
        elif event.type == "DELETED":
            self._ends.pop(event.object["metadata"]["uid"], None)
        return super().keys(event)

    async def sync(self, job: Obj) -> float | None:
        now = self.clock.now()
        if finished := finished_at(job):
            return self._remove_when_due(job, finished, now)
        job = self._start(job)
        active = self._active(job)
        done = self._tally(job)
        over = jobstate.verdict(job, done, active, now)
        missing = -len(active) if over.kind else jobstate.missing(job, done, active)
        for pod in pods.expendable_first(active)[: max(-missing, 0)]:
            if over.kind != "Failed":  # not wanted any more, it counts as no failure
                self._ends.setdefault(job["metadata"]["uid"], {})[pod["metadata"]["uid"]] = None
            self.delete_pod(job, pod)
        backoff_s = jobstate.backoff_left_s(done, now) if missing > 0 else 0
        try:
            if missing > 0 and not backoff_s:
                await self.create_pods(job, list(self._new_pods(job, done, active, missing)))
        finally:
            self._write_status(job, over)
        if over.kind:
            return self._remove_when_due(job, now, now)
        end = jobstate.deadline(job)
        waits = [backoff_s, (end - now).total_seconds() if end else 0]
        return min((wait for wait in waits if wait), default=None)

    def _start(self, job: Obj) -> Obj:
        """The job with a start time, which a suspended one has not."""
        suspended, was = bool(job["spec"].get("suspend")), conditions.holds(job, "Suspended")
        now, said = self.store.now(), "Suspended" if suspended else "Resumed"
        with self.changing(job) as draft:
            status = draft["status"]
            if suspended:
                status.pop("startTime", None)
            else:
                status.setdefault("startTime", now)
            if suspended != was:
                reason, message = f"Job{said}", f"Job {said.lower()}"
                conditions.put(status, "Suspended", str(suspended), reason, message, now, lastProbeTime=now)
        if suspended != was:
            self.say(job, said, f"Job {said.lower()}")
        return draft

    def _active(self, job: Obj) -> list[Obj]:
        owned = self.owners.claimed(job, "pods")
        for pod in owned:
            self._note(pod, gone=False)
        return [pod for pod in owned if pods.is_active(pod)]

    def _note(self, pod: Obj, *, gone: bool) -> None:
        """Count a pod once it has ended; one that vanishes unfinished has failed."""
        owner = controller_of(pod)
        if owner is not None and owner["kind"] == self.kind and (gone or not pods.is_active(pod)):
            end = End(pods.phase(pod) == "Succeeded", jobstate.index_of(pod), self.clock.now())
            self._ends.setdefault(owner["uid"], {}).setdefault(pod["metadata"]["uid"], end)

    def _tally(self, job: Obj) -> Tally:
        ends = self._ends.get(job["metadata"]["uid"], {}).values()
        return jobstate.tally(job["spec"], [end for end in ends if end])

    def _new_pods(self, job: Obj, done: Tally, active: list[Obj], count: int) -> Iterator[Obj]:
        taken = {jobstate.index_of(pod) for pod in active} | done.indexes
        free = [number for number in range(job["spec"].get("completions") or 0) if number not in taken]
        indexes: list[int | None] = [*free] if jobstate.is_indexed(job["spec"]) else [None] * count
        for index in indexes[:count]:
            base = name_of(job) if index is None else f"{name_of(job)}-{index}"
            pod = pods.make(job, job["spec"]["template"], generateName=f"{base}-")
            if index is not None:
                _number(pod, index, base)
            yield pod

    def _write_status(self, seen: Obj, over: Verdict) -> None:
        now, active, done = self.store.now(), self._active(seen), self._tally(seen)
        with self.changing(seen) as job:
            status = job["status"]
            set_counts(status, {"active": len(active), "succeeded": done.succeeded, "failed": done.failed})
            status.update(ready=sum(map(pods.is_ready, active)), terminating=0, uncountedTerminatedPods={})
            if done.indexes:
                status["completedIndexes"] = jobstate.indexes_text(done.indexes)
            if over.kind:
                first = "SuccessCriteriaMet" if over.kind == "Complete" else "FailureTarget"
                for kind in (first, over.kind):
                    conditions.put(status, kind, "True", over.reason, over.message, now, lastProbeTime=now)
            if over.kind == "Complete":
                status["completionTime"] = now
        if over.kind == "Complete":
            self.say(seen, "Completed", "Job completed")
        elif over.kind:
            self.warn(seen, over.reason, over.message)

    def _remove_when_due(self, job: Obj, finished: datetime.datetime, now: datetime.datetime) -> float | None:
        """ttlSecondsAfterFinished: seconds left, or the job deleted."""
        ttl_s = job["spec"].get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return None
        left_s = (finished + datetime.timedelta(seconds=ttl_s) - now).total_seconds()
        if left_s > 0:
            return left_s
        self.store.delete(self.resource, job["metadata"]["namespace"], name_of(job))
        return None


def _number(pod: Obj, index: int, base: str) -> None:
    """Tell an Indexed job's pod which it is."""
    for field in ("labels", "annotations"):
        pod["metadata"].setdefault(field, {})[INDEX] = str(index)
    pod["spec"]["hostname"] = base
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})


def finished_at(job: Obj) -> datetime.datetime | None:
    """When the job became Complete or Failed."""
    found = next((conditions.find(job, kind) for kind in ("Complete", "Failed") if conditions.holds(job, kind)), None)
    return parse(found["lastTransitionTime"]) if found else None

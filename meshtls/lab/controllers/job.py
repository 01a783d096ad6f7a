"""Job: pods until enough of them have succeeded. `jobstate` says where it stands; this module makes, counts and
removes the pods.

Whether a pod has ended is the node's to say: native sidecars do not hold a pod open, a classic sidecar does, as in a
real cluster.
"""

import datetime

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import jobstate, pods
from meshtls.lab.controllers.clock import parse, text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.jobstate import INDEX, Tally, Verdict
from meshtls.lab.controllers.objects import Obj, condition, is_deleting, key_of, says_new, set_condition
from meshtls.lab.controllers.queue import Key
from meshtls.lab.controllers.replicaset import owner_keys

RESOURCE = "jobs.batch"
UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")


class Jobs:
    name = "job-controller"
    watches = frozenset({RESOURCE, "pods"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._counted: dict[str, set[str]] = {}
        self._tallies: dict[str, Tally] = {}

    def keys(self, event: Event) -> list[Key]:
        if event.resource == RESOURCE:
            if event.type == "DELETED":
                self._counted.pop(event.object["metadata"]["uid"], None)
                self._tallies.pop(event.object["metadata"]["uid"], None)
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        found = owner_keys(event, "Job")
        if found:
            self._count(event.object, gone=event.type == "DELETED")
        return found

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job = self._hands.store.get(RESOURCE, namespace, name)
        if job is None or is_deleting(job):
            return None
        now = self._hands.clock.now()
        if finished := finished_at(job):
            return self._remove_when_due(job, finished, now)
        job = self._start(job, now)
        active = self._active(job)
        tally = self._tally(job)
        over = jobstate.verdict(job, tally, active, now)
        wait = None
        try:
            if over.kind:
                for pod in active:
                    self._dismiss(job, pod, failed=over.kind == "Failed")
            else:
                wait = await self._balance(job, tally, active, now)
        finally:
            self._write_status(job, over)
        return self._remove_when_due(job, now, now) if over.kind else wait

    def _start(self, job: Obj, now: datetime.datetime) -> Obj:
        """Set the start time, or take it away from a suspended job; say so."""
        job = self._with_selector(job)
        suspended, status = bool(job["spec"].get("suspend")), job.get("status") or {}
        old = condition(job, "Suspended")
        was = old is not None and old["status"] == "True"
        if suspended == was and (suspended or status.get("startTime")):
            return job

        def write(obj: Obj) -> None:
            fresh = obj.setdefault("status", {})
            if suspended:
                fresh.pop("startTime", None)
                set_condition(fresh, "Suspended", "True", "JobSuspended", "Job suspended", text(now))
                return
            fresh["startTime"] = text(now)
            if was:
                set_condition(fresh, "Suspended", "False", "JobResumed", "Job resumed", text(now))

        written = self._hands.store.mutate(RESOURCE, *key_of(job), write) or job
        if suspended or was:
            reason = "Suspended" if suspended else "Resumed"
            self._hands.recorder.normal(job, self.name, reason, f"Job {reason.lower()}")
        return written

    def _with_selector(self, job: Obj) -> Obj:
        """A Job that came in past the API (a CronJob's) gets the selector and labels that the API would have given
        it."""
        if job["spec"].get("selector"):
            return job

        def write(obj: Obj) -> None:
            obj["spec"]["selector"] = _selector(job)
            obj["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {}).update(_labels(job))

        return self._hands.store.mutate(RESOURCE, *key_of(job), write) or job

    def _active(self, job: Obj) -> list[Obj]:
        owned = self._hands.owners.claimed(job, "pods", job["spec"].get("selector"))
        for pod in owned:
            self._count(pod, gone=False)
        return [pod for pod in owned if pods.is_active(pod)]

    def _count(self, pod: Obj, *, gone: bool) -> None:
        """Count a pod once it has ended; one that vanishes unfinished has failed."""
        owner = next((ref for ref in pod["metadata"].get("ownerReferences") or () if ref.get("controller")), None)
        if owner is None or not (gone or pods.is_done(pod) or is_deleting(pod)):
            return
        counted = self._counted.setdefault(owner["uid"], set())
        if pod["metadata"]["uid"] in counted:
            return
        counted.add(pod["metadata"]["uid"])
        failed = pods.phase(pod) != "Succeeded"
        old = self._tallies.get(owner["uid"], Tally())
        self._tallies[owner["uid"]] = Tally(
            succeeded=old.succeeded + (not failed),
            failed=old.failed + failed,
            indexes=old.indexes | {jobstate.index_of(pod)}
            if not failed and jobstate.index_of(pod) is not None
            else old.indexes,
            last_failure=self._hands.clock.now() if failed else old.last_failure,
        )

    def _dismiss(self, job: Obj, pod: Obj, *, failed: bool) -> None:
        """Delete a pod that is no longer wanted: it counts as failed only when the job itself has failed."""
        if not failed:
            self._counted.setdefault(job["metadata"]["uid"], set()).add(pod["metadata"]["uid"])
        pods.delete(self._hands, job, self.name, pod)

    def _tally(self, job: Obj) -> Tally:
        return self._tallies.get(job["metadata"]["uid"], Tally())

    async def _balance(self, job: Obj, tally: Tally, active: list[Obj], now: datetime.datetime) -> float | None:
        """Add or remove pods; seconds until the backoff or the deadline is over."""
        spec, waits = job["spec"], []
        missing = jobstate.missing(job, tally, active)
        for pod in pods.expendable_first(active)[: max(-missing, 0)]:
            self._dismiss(job, pod, failed=False)
        if missing > 0:
            backoff_s = jobstate.backoff_left_s(tally, now)
            if backoff_s:
                waits.append(backoff_s)
            else:
                await pods.create(self._hands, job, self.name, self._new_pods(job, tally, active, missing))
        if spec.get("activeDeadlineSeconds") is not None and not spec.get("suspend"):
            end = parse(job["status"]["startTime"]) + datetime.timedelta(seconds=spec["activeDeadlineSeconds"])
            waits.append(max((end - now).total_seconds(), 0))
        return min(waits, default=None)

    def _new_pods(self, job: Obj, tally: Tally, active: list[Obj], count: int) -> list[Obj]:
        if not jobstate.is_indexed(job["spec"]):
            return [self._pod(job, None) for _ in range(count)]
        taken = {jobstate.index_of(pod) for pod in active} | tally.indexes
        free = (number for number in range(jobstate.completions(job["spec"]) or 0) if number not in taken)
        return [self._pod(job, number) for number, _ in zip(free, range(count), strict=False)]

    def _pod(self, job: Obj, index: int | None) -> Obj:
        base = job["metadata"]["name"] + ("" if index is None else f"-{index}")
        pod = pods.make(job, job["spec"]["template"], f"{base}-{self._hands.suffix()}")
        pod["metadata"]["generateName"] = f"{base}-"
        labels = pod["metadata"]["labels"]
        labels |= _labels(job)
        if index is not None:
            labels[INDEX] = pod["metadata"]["annotations"][INDEX] = str(index)
            pod["spec"]["hostname"] = base
            for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
                container.setdefault("env", []).append(
                    {
                        "name": "JOB_COMPLETION_INDEX",
                        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}},
                    }
                )
        return pod

    def _write_status(self, seen: Obj, over: Verdict) -> None:
        now = text(self._hands.clock.now())
        active, tally = self._active(seen), self._tally(seen)
        counts = {
            "active": len(active),
            "succeeded": len(tally.indexes) if jobstate.is_indexed(seen["spec"]) else tally.succeeded,
            "failed": tally.failed,
        }

        def write(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            for field, count in counts.items():
                if count:
                    status[field] = count
                else:
                    status.pop(field, None)
            status.update(ready=sum(map(pods.is_ready, active)), terminating=0, uncountedTerminatedPods={})
            if tally.indexes:
                status["completedIndexes"] = jobstate.indexes_text(tally.indexes)
            if over.kind:
                first = "SuccessCriteriaMet" if over.kind == "Complete" else "FailureTarget"
                for kind in (first, over.kind):
                    set_condition(status, kind, "True", over.reason, over.message, now, lastProbeTime=now)
                if over.kind == "Complete":
                    status["completionTime"] = now

        self._hands.store.mutate(RESOURCE, *key_of(seen), write)
        if over.kind == "Complete":
            self._hands.recorder.normal(seen, self.name, "Completed", "Job completed")
        elif over.kind:
            self._hands.recorder.warning(seen, self.name, over.reason, over.message)

    def _remove_when_due(self, job: Obj, finished: datetime.datetime, now: datetime.datetime) -> float | None:
        """ttlSecondsAfterFinished: seconds left, or the job deleted."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        left_s = (finished + datetime.timedelta(seconds=ttl) - now).total_seconds()
        if left_s > 0:
            return left_s
        self._hands.store.delete(RESOURCE, *key_of(job))
        return None


def _selector(job: Obj) -> Obj:
    return {"matchLabels": {UID_LABELS[0]: job["metadata"]["uid"]}}


def _labels(job: Obj) -> dict[str, str]:
    return dict.fromkeys(UID_LABELS, job["metadata"]["uid"]) | dict.fromkeys(NAME_LABELS, job["metadata"]["name"])


def finished_at(job: Obj) -> datetime.datetime | None:
    """When the job became Complete or Failed."""
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found is not None and found["status"] == "True":
            return parse(found["lastTransitionTime"])
    return None

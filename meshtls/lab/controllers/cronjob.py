"""CronJob: a Job each time the schedule says.

Laws (pkg/controller/cronjob/cronjob_controllerv2.go):
  1. Only the latest missed time is started, and only if it is no older than startingDeadlineSeconds; a Job is named
     after its minute, so no time is started twice.
  2. Forbid skips a time while a Job runs, Replace deletes the running one, Allow minds neither.
  3. Finished Jobs beyond the history limits (3 good, 1 failed) are removed, oldest first.
"""

import datetime
import zoneinfo

from croniter import croniter
from croniter.croniter import CroniterError

from meshtls.lab.api.store import Event, Exists, clone
from meshtls.lab.controllers.clock import parse, text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.job import finished_at
from meshtls.lab.controllers.objects import Obj, condition, is_deleting, key_of, owner_reference, says_new
from meshtls.lab.controllers.queue import Key
from meshtls.lab.controllers.replicaset import owner_keys

RESOURCE, JOBS = "cronjobs.batch", "jobs.batch"


class Unparseable(ValueError):
    """The schedule or its time zone says nothing."""


def latest(schedule: str, zone: str, after: datetime.datetime, now: datetime.datetime) -> datetime.datetime | None:
    """The last scheduled time in (after, now]. Raises Unparseable."""
    found = _iterator(schedule, zone, now + datetime.timedelta(seconds=1)).get_prev(datetime.datetime)
    return found.astimezone(datetime.UTC) if after < found <= now else None


def upcoming(schedule: str, zone: str, now: datetime.datetime) -> datetime.datetime:
    """The first scheduled time after now. Raises Unparseable."""
    return _iterator(schedule, zone, now).get_next(datetime.datetime).astimezone(datetime.UTC)


def _iterator(schedule: str, zone: str, start: datetime.datetime) -> croniter:
    if not schedule.startswith("@") and len(schedule.split()) != 5:
        raise Unparseable(f"expected exactly 5 fields, found {len(schedule.split())}: {schedule!r}")
    try:
        return croniter(schedule, start.astimezone(zoneinfo.ZoneInfo(zone or "UTC")))
    except (CroniterError, zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise Unparseable(str(error)) from error


class CronJobs:
    name = "cronjob-controller"
    watches = frozenset({RESOURCE, JOBS})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == RESOURCE:
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        return owner_keys(event, "CronJob")

    async def reconcile(self, namespace: str, name: str) -> float | None:
        cron = self._hands.store.get(RESOURCE, namespace, name)
        if cron is None or is_deleting(cron):
            return None
        jobs = self._hands.owners.owned(cron, JOBS)
        self._note_finished(cron, jobs)
        self._forget(cron, jobs)
        spec, now = cron["spec"], self._hands.clock.now()
        if spec.get("suspend"):
            return None
        try:
            due = latest(spec["schedule"], spec.get("timeZone", ""), self._since(cron, now), now)
            if due is not None:
                self._start(cron, due)
            following = upcoming(spec["schedule"], spec.get("timeZone", ""), now)
        except Unparseable as error:
            self._hands.recorder.warning(cron, self.name, "UnparseableSchedule", f"unparseable schedule: {error}")
            return None
        return (following - now).total_seconds()

    def _since(self, cron: Obj, now: datetime.datetime) -> datetime.datetime:
        """Times up to here are done with, or too old to start."""
        started = (cron.get("status") or {}).get("lastScheduleTime") or cron["metadata"]["creationTimestamp"]
        deadline = cron["spec"].get("startingDeadlineSeconds")
        since = parse(started)
        return since if deadline is None else max(since, now - datetime.timedelta(seconds=deadline))

    def _start(self, cron: Obj, due: datetime.datetime) -> None:
        hands, (namespace, name) = self._hands, key_of(cron)
        running = [job for job in hands.owners.owned(cron, JOBS) if finished_at(job) is None and not is_deleting(job)]
        policy = cron["spec"].get("concurrencyPolicy", "Allow")
        if running and policy == "Forbid":
            hands.recorder.normal(
                cron,
                self.name,
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid",
            )
            return
        if policy == "Replace":
            for job in running:
                hands.store.delete(JOBS, *key_of(job))
                hands.recorder.normal(cron, self.name, "SuccessfulDelete", f"Deleted job {job['metadata']['name']}")
        try:
            job = hands.store.create(JOBS, make_job(cron, due))
        except Exists:
            job = None
        if job is not None:
            hands.recorder.normal(cron, self.name, "SuccessfulCreate", f"Created job {job['metadata']['name']}")
        hands.store.mutate(
            RESOURCE, namespace, name, lambda obj: obj.setdefault("status", {}).update(lastScheduleTime=text(due))
        )
        self._note_finished(cron, hands.owners.owned(cron, JOBS))

    def _note_finished(self, cron: Obj, jobs: list[Obj]) -> None:
        """status.active and lastSuccessfulTime; an event for each Job seen to end."""
        old = {ref["uid"] for ref in (cron.get("status") or {}).get("active") or ()}
        active = [
            {
                "apiVersion": job["apiVersion"],
                "kind": job["kind"],
                "namespace": job["metadata"]["namespace"],
                "name": job["metadata"]["name"],
                "uid": job["metadata"]["uid"],
                "resourceVersion": job["metadata"]["resourceVersion"],
            }
            for job in jobs
            if finished_at(job) is None and not is_deleting(job)
        ]
        known = {ref["uid"]: ref for ref in (cron.get("status") or {}).get("active") or ()}
        for job in jobs:
            if job["metadata"]["uid"] in old and finished_at(job) is not None:
                end = "Complete" if condition(job, "Complete") else "Failed"
                self._hands.recorder.normal(
                    cron,
                    self.name,
                    "SawCompletedJob",
                    f"Saw completed job: {job['metadata']['name']}, condition: {end}",
                )
        succeeded = [job["status"]["completionTime"] for job in jobs if (job.get("status") or {}).get("completionTime")]

        def write(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            # a reference keeps the version it was first written with: a Job's own progress is no write here
            status["active"] = [known.get(ref["uid"], ref) for ref in active]
            if not active:
                del status["active"]
            if succeeded:
                status["lastSuccessfulTime"] = max([*succeeded, status.get("lastSuccessfulTime", "")])

        self._hands.store.mutate(RESOURCE, *key_of(cron), write)

    def _forget(self, cron: Obj, jobs: list[Obj]) -> None:
        for kind, limit in (
            ("Complete", cron["spec"].get("successfulJobsHistoryLimit", 3)),
            ("Failed", cron["spec"].get("failedJobsHistoryLimit", 1)),
        ):
            ended = sorted(
                (job for job in jobs if condition(job, kind) and not is_deleting(job)),
                key=lambda job: ((job.get("status") or {}).get("startTime", ""), job["metadata"]["name"]),
            )
            for job in ended[: max(len(ended) - limit, 0)]:
                self._hands.store.delete(JOBS, *key_of(job))
                self._hands.recorder.normal(
                    cron, self.name, "SuccessfulDelete", f"Deleted job {job['metadata']['name']}"
                )


def make_job(cron: Obj, due: datetime.datetime) -> Obj:
    """The Job of one scheduled time."""
    namespace, name = key_of(cron)
    template = cron["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name}-{int(due.timestamp()) // 60}",
            "namespace": namespace,
            "labels": dict(metadata.get("labels") or {}),
            "annotations": {
                **(metadata.get("annotations") or {}),
                "batch.kubernetes.io/cronjob-scheduled-timestamp": text(due),
            },
            "ownerReferences": [owner_reference(cron)],
        },
        "spec": clone(template["spec"]),
    }

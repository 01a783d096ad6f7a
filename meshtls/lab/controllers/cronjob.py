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

from meshtls.lab.api.store import clone
from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.controller import Workload
from meshtls.lab.controllers.job import finished_at
from meshtls.lab.controllers.objects import Obj, child, is_deleting, key_of, name_of, parse, status_of, surplus, text
from meshtls.lab.controllers.queue import Retry

JOBS = "jobs.batch"


class Unparseable(ValueError):
    """The schedule or its time zone says nothing."""


def around(schedule: str, zone: str, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """The last scheduled time up to now, and the first after it. Raises Unparseable."""
    if not schedule.startswith("@") and len(schedule.split()) != 5:
        raise Unparseable(f"expected exactly 5 fields, found {len(schedule.split())}: {schedule!r}")
    try:
        there = now.astimezone(zoneinfo.ZoneInfo(zone or "UTC"))
        last = croniter(schedule, there + datetime.timedelta(seconds=1)).get_prev(datetime.datetime)
        following = croniter(schedule, there).get_next(datetime.datetime)
    except (CroniterError, zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise Unparseable(str(error)) from error
    return last.astimezone(datetime.UTC), following.astimezone(datetime.UTC)


class CronJobs(Workload):
    name, resource, kind = "cronjob-controller", "cronjobs.batch", "CronJob"
    watches = frozenset({resource, JOBS})

    async def sync(self, cron: Obj) -> float | None:
        self._note(cron)
        self._forget(cron)
        spec, now = cron["spec"], self.clock.now()
        if spec.get("suspend"):
            return None
        try:
            due, following = around(spec["schedule"], spec.get("timeZone", ""), now)
        except Unparseable as error:
            self.warn(cron, "UnparseableSchedule", f"unparseable schedule: {error}")
            return None
        if self._since(cron, now) < due <= now:
            await self._start(cron, due)
        return (following - now).total_seconds()

    def _since(self, cron: Obj, now: datetime.datetime) -> datetime.datetime:
        """Times up to here are done with, or too old to start."""
        since = parse(status_of(cron).get("lastScheduleTime") or cron["metadata"]["creationTimestamp"])
        deadline = cron["spec"].get("startingDeadlineSeconds")
        return since if deadline is None else max(since, now - datetime.timedelta(seconds=deadline))

    async def _start(self, cron: Obj, due: datetime.datetime) -> None:
        running = [job for job in self.owners.owned(cron, JOBS) if _is_running(job)]
        policy = cron["spec"].get("concurrencyPolicy", "Allow")
        if running and policy == "Forbid":
            why = "prior execution is running and concurrency policy is Forbid"
            self.say(cron, "JobAlreadyActive", f"Not starting job because {why}")
            return
        for job in running if policy == "Replace" else ():
            self._delete(cron, job)
        job = make_job(cron, due)
        if self.store.get(JOBS, *key_of(job)) is None:
            made = await self.submit(JOBS, job)
            if isinstance(made, Exception):
                self.warn(cron, "FailedCreate", f"Error creating job: {made}")
                raise Retry(str(made))
            self.say(cron, "SuccessfulCreate", f"Created job {name_of(made)}")
        with self.changing(cron) as draft:
            draft["status"]["lastScheduleTime"] = text(due)
        self._note(cron)

    def _note(self, cron: Obj) -> None:
        """status.active and lastSuccessfulTime; an event for each Job seen to end."""
        jobs = self.owners.owned(cron, JOBS)
        known = {ref["uid"]: ref for ref in status_of(cron).get("active") or ()}
        for job in jobs:
            if job["metadata"]["uid"] in known and finished_at(job) is not None:
                end = "Complete" if conditions.find(job, "Complete") else "Failed"
                self.say(cron, "SawCompletedJob", f"Saw completed job: {name_of(job)}, condition: {end}")
        # a reference keeps the version it was first written with: a Job's own progress is no write here
        active = [known.get(job["metadata"]["uid"], _reference(job)) for job in jobs if _is_running(job)]
        times = [status_of(job)["completionTime"] for job in jobs if status_of(job).get("completionTime")]
        with self.changing(cron) as draft:
            status = draft["status"]
            status["active"] = active
            if not active:
                del status["active"]
            if times:
                status["lastSuccessfulTime"] = max(*times, status.get("lastSuccessfulTime", ""))

    def _forget(self, cron: Obj) -> None:
        jobs, spec = self.owners.owned(cron, JOBS), cron["spec"]
        for kind, field, usual in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            ended = [job for job in jobs if conditions.find(job, kind) and not is_deleting(job)]
            for job in surplus(
                ended, spec.get(field, usual), lambda job: (status_of(job).get("startTime", ""), name_of(job))
            ):
                self._delete(cron, job)

    def _delete(self, cron: Obj, job: Obj) -> None:
        self.store.delete(JOBS, *key_of(job))
        self.say(cron, "SuccessfulDelete", f"Deleted job {name_of(job)}")


def _is_running(job: Obj) -> bool:
    return finished_at(job) is None and not is_deleting(job)


def _reference(job: Obj) -> Obj:
    about = {key: job["metadata"][key] for key in ("namespace", "name", "uid", "resourceVersion")}
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], **about}


def make_job(cron: Obj, due: datetime.datetime) -> Obj:
    """The Job of one scheduled time."""
    template = cron["spec"]["jobTemplate"]
    job = child(cron, "batch/v1", "Job", template, name=f"{name_of(cron)}-{int(due.timestamp()) // 60}")
    stamp = {"batch.kubernetes.io/cronjob-scheduled-timestamp": text(due)}
    job["metadata"].setdefault("annotations", {}).update(stamp)
    return {**job, "spec": clone(template["spec"])}

"""CronJobs. The clock starts on Tuesday, 1 January 2030, 12:00 UTC."""

import datetime

import pytest

from meshtls.lab.controllers.cronjob import Unparseable, around
from meshtls.lab.controllers.objects import child
from tests.lab_controllers.cluster import START, workload


def cron(schedule="*/5 * * * *", **spec):
    job = workload("Job", "tick", "batch/v1", completions=1)["spec"]
    del job["selector"]
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "shop"},
        "spec": {"schedule": schedule, "jobTemplate": {"metadata": {"labels": {"from": "cron"}}, "spec": job}, **spec},
    }


def jobs(cluster):
    return cluster.names("jobs.batch")


def named(minute):
    """The name of the Job of that minute after the start."""
    return f"tick-{int(START.timestamp()) // 60 + minute}"


def test_a_job_is_made_on_schedule_named_after_its_minute(cluster):
    cluster.create("cronjobs.batch", cron())
    cluster.advance(299)
    assert jobs(cluster) == []
    cluster.advance(1)
    assert jobs(cluster) == [named(5)]
    job = cluster.get("jobs.batch", named(5))
    assert job["metadata"]["labels"] == {"from": "cron"} and job["spec"]["selector"]
    assert len(cluster.pods()) == 1
    status = cluster.get("cronjobs.batch", "tick")["status"]
    assert status["lastScheduleTime"] == "2030-01-01T12:05:00Z" and [ref["name"] for ref in status["active"]] == jobs(
        cluster
    )
    cluster.finish(cluster.pods()[0])
    status = cluster.get("cronjobs.batch", "tick")["status"]
    assert "active" not in status and status["lastSuccessfulTime"] == "2030-01-01T12:05:00Z"
    assert cluster.reasons("tick") == ["SuccessfulCreate", "SawCompletedJob"]


@pytest.mark.parametrize(("policy", "minutes"), [("Allow", [5, 10]), ("Forbid", [5]), ("Replace", [10])])
def test_what_happens_while_a_job_still_runs(cluster, policy, minutes):
    cluster.create("cronjobs.batch", cron(concurrencyPolicy=policy))
    cluster.advance(600)
    assert jobs(cluster) == [named(minute) for minute in minutes]


def test_a_forbidden_time_is_made_up_for_when_the_job_ends(cluster):
    cluster.create("cronjobs.batch", cron(concurrencyPolicy="Forbid"))
    cluster.advance(620)
    cluster.finish(cluster.pods()[0])
    assert len(jobs(cluster)) == 2
    assert cluster.get("cronjobs.batch", "tick")["status"]["lastScheduleTime"] == "2030-01-01T12:10:00Z"


def test_suspension_stops_it_and_only_the_latest_missed_time_is_started(cluster):
    cluster.create("cronjobs.batch", cron(suspend=True))
    cluster.advance(3600)
    assert jobs(cluster) == []
    cluster.change("cronjobs.batch", "tick", lambda one: one["spec"].update(suspend=False))
    assert len(jobs(cluster)) == 1


def test_a_missed_time_older_than_the_starting_deadline_is_not_started(cluster):
    cluster.create("cronjobs.batch", cron("0 * * * *", suspend=True, startingDeadlineSeconds=30))
    cluster.advance(3660)
    cluster.change("cronjobs.batch", "tick", lambda one: one["spec"].update(suspend=False))
    assert jobs(cluster) == []


def test_history_limits_keep_the_youngest(cluster):
    cluster.create("cronjobs.batch", cron(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0))
    for _ in range(4):
        cluster.advance(300)
        cluster.finish(cluster.pods()[0])
    assert jobs(cluster) == [named(15), named(20)]


def test_an_unreadable_schedule_is_said_and_starts_nothing(cluster):
    cluster.create("cronjobs.batch", cron("every day"))
    assert cluster.reasons("tick") == ["UnparseableSchedule"]
    cluster.change("cronjobs.batch", "tick", lambda one: one["spec"].update(schedule="* * * * *"))
    cluster.advance(60)
    assert len(jobs(cluster)) == 1


def test_a_refused_job_is_said_and_tried_again(cluster):
    cluster.create("cronjobs.batch", cron())
    cluster.refuse = lambda obj: "no such jobs here" if obj["kind"] == "Job" else ""
    cluster.advance(300)
    assert jobs(cluster) == [] and cluster.events("tick") == [("FailedCreate", "Error creating job: no such jobs here")]
    cluster.refuse = lambda obj: ""
    cluster.advance(1)
    assert jobs(cluster) == [named(5)]


def test_a_job_made_by_hand_from_the_template_is_no_scheduled_one(cluster):
    made = cluster.create("cronjobs.batch", cron("0 0 1 1 *"))
    by_hand = child(made, "batch/v1", "Job", made["spec"]["jobTemplate"], name="by-hand")
    cluster.create("jobs.batch", {**by_hand, "spec": made["spec"]["jobTemplate"]["spec"]})
    cluster.finish(cluster.pods()[0])
    assert jobs(cluster) == ["by-hand"] and "lastScheduleTime" not in cluster.get("cronjobs.batch", "tick")["status"]
    cluster.delete("cronjobs.batch", "tick")
    assert jobs(cluster) == []


def test_time_zones_and_macros():
    before = START - datetime.timedelta(seconds=1)
    assert around("30 9 * * *", "Europe/Berlin", START)[1].isoformat() == "2030-01-02T08:30:00+00:00"
    assert around("@hourly", "", START)[1].isoformat() == "2030-01-01T13:00:00+00:00"
    assert around("0 12 * * *", "", START)[0] == around("0 12 * * *", "", before)[1] == START
    assert around("0 12 * * *", "", before)[0].isoformat() == "2029-12-31T12:00:00+00:00"
    for schedule, zone in (
        ("* * * *", ""),
        ("* * * * * *", ""),
        ("61 * * * *", ""),
        ("@never", ""),
        ("* * * * *", "Nowhere/Land"),
    ):
        with pytest.raises(Unparseable):
            around(schedule, zone, START)

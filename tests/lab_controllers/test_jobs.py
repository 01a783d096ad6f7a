"""Jobs: what makes them complete, fail, wait and go."""

import pytest

from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.jobstate import indexes_text
from meshtls.lab.controllers.objects import labels_of
from tests.lab_controllers.cluster import workload


def job(**spec):
    made = workload("Job", "task", "batch/v1", **spec)
    del made["spec"]["selector"]
    made["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    return made


def status(cluster):
    return cluster.get("jobs.batch", "task")["status"]


def ended(cluster):
    return [
        one["type"]
        for one in status(cluster).get("conditions", ())
        if one["type"] in ("Complete", "Failed") and one["status"] == "True"
    ]


def test_a_job_completes_with_its_pod(cluster):
    cluster.create("jobs.batch", job(completions=1))
    [pod] = cluster.pods()
    labels = labels_of(cluster.get("pods", pod))
    uid = cluster.get("jobs.batch", "task")["metadata"]["uid"]
    assert labels["job-name"] == labels["batch.kubernetes.io/job-name"] == "task"
    assert labels["controller-uid"] == labels["batch.kubernetes.io/controller-uid"] == uid
    assert (status(cluster)["active"], status(cluster)["ready"]) == (1, 1)
    cluster.advance(3)
    cluster.finish(pod)
    assert ended(cluster) == ["Complete"] and status(cluster)["succeeded"] == 1 and "active" not in status(cluster)
    assert status(cluster)["completionTime"] == "2030-01-01T12:00:03Z"
    assert cluster.reasons("task") == ["SuccessfulCreate", "Completed"]
    assert cluster.names("pods") == [pod]


def test_completions_are_worked_off_with_bounded_parallelism(cluster):
    cluster.create("jobs.batch", job(completions=5, parallelism=2))
    for _ in range(5):
        assert 1 <= len(cluster.pods()) <= 2
        cluster.finish(cluster.pods()[0])
    assert ended(cluster) == ["Complete"] and status(cluster)["succeeded"] == 5


def test_a_work_queue_ends_when_one_has_succeeded_and_none_is_left(cluster):
    cluster.create("jobs.batch", job(parallelism=3))
    for left in (2, 1, 0):
        cluster.finish(cluster.pods()[0])
        assert len(cluster.pods()) == left
    assert ended(cluster) == ["Complete"]


def test_indexed_pods_have_their_index_in_name_label_annotation_and_environment(cluster):
    cluster.create("jobs.batch", job(completions=3, parallelism=3, completionMode="Indexed"))
    assert [name[:7] for name in cluster.pods()] == ["task-0-", "task-1-", "task-2-"]
    pod = cluster.get("pods", cluster.pods()[2])
    assert (
        labels_of(pod)["batch.kubernetes.io/job-completion-index"]
        == pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        == "2"
    )
    assert pod["spec"]["hostname"] == "task-2"
    assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


def test_a_failed_index_is_run_again_and_the_others_are_kept(cluster):
    cluster.create("jobs.batch", job(completions=3, parallelism=3, completionMode="Indexed"))
    zero, one, two = cluster.pods()
    cluster.finish(zero)
    cluster.finish(two)
    cluster.finish(one, "Failed")
    assert status(cluster)["completedIndexes"] == "0,2"
    cluster.advance(10)
    [again] = cluster.pods()
    assert again.startswith("task-1-") and again != one
    cluster.finish(again)
    assert ended(cluster) == ["Complete"] and status(cluster)["completedIndexes"] == "0-2"


def test_failures_wait_ever_longer_and_end_at_the_backoff_limit(cluster):
    cluster.create("jobs.batch", job(completions=1, backoffLimit=2))
    for wait in (10, 20):
        cluster.finish(cluster.pods()[0], "Failed")
        cluster.advance(wait - 1)
        assert cluster.pods() == []
        cluster.advance(1)
        assert len(cluster.pods()) == 1
    cluster.finish(cluster.pods()[0], "Failed")
    assert ended(cluster) == ["Failed"] and status(cluster)["failed"] == 3
    failed = conditions.find(cluster.get("jobs.batch", "task"), "Failed")
    assert (failed["reason"], failed["message"]) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
    cluster.advance(3600)
    assert cluster.pods() == []


def test_container_restarts_count_against_the_limit_when_restarting_on_failure(cluster):
    made = job(completions=1, backoffLimit=2)
    made["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    cluster.create("jobs.batch", made)
    cluster.change("pods", cluster.pods()[0], lambda pod: pod["status"].update(containerStatuses=[{"restartCount": 1}]))
    assert ended(cluster) == []
    cluster.change("pods", cluster.pods()[0], lambda pod: pod["status"].update(containerStatuses=[{"restartCount": 2}]))
    assert ended(cluster) == ["Failed"]


def test_the_deadline_ends_a_running_job(cluster):
    cluster.create("jobs.batch", job(completions=1, activeDeadlineSeconds=60))
    cluster.advance(59)
    assert ended(cluster) == []
    cluster.advance(1)
    assert conditions.find(cluster.get("jobs.batch", "task"), "Failed")["reason"] == "DeadlineExceeded"
    assert cluster.names("pods") == []


def test_a_finished_job_goes_after_its_time_to_live_with_its_pods(cluster):
    cluster.create("jobs.batch", job(completions=1, ttlSecondsAfterFinished=30))
    cluster.finish(cluster.pods()[0])
    cluster.advance(29)
    assert cluster.names("jobs.batch") == ["task"]
    cluster.advance(1)
    assert cluster.names("jobs.batch") == [] and cluster.names("pods") == []


def test_suspension_takes_the_pods_and_counts_no_failure(cluster):
    cluster.create("jobs.batch", job(completions=1, suspend=True))
    assert cluster.names("pods") == [] and "startTime" not in status(cluster)
    cluster.change("jobs.batch", "task", lambda one: one["spec"].update(suspend=False))
    assert len(cluster.pods()) == 1 and "startTime" in status(cluster)
    cluster.change("jobs.batch", "task", lambda one: one["spec"].update(suspend=True))
    assert cluster.names("pods") == [] and "failed" not in status(cluster)
    assert sorted(cluster.reasons("task")) == ["Resumed", "SuccessfulCreate", "SuccessfulDelete", "Suspended"]


def test_a_pod_that_vanishes_while_running_has_failed_and_is_replaced(cluster):
    cluster.create("jobs.batch", job(completions=1))
    [first] = cluster.pods()
    cluster.delete("pods", first)
    assert status(cluster)["failed"] == 1
    cluster.advance(10)
    assert len(cluster.pods()) == 1 and cluster.pods() != [first]


def test_a_counted_success_stays_counted_when_its_pod_is_deleted(cluster):
    cluster.create("jobs.batch", job(completions=2, parallelism=1))
    [first] = cluster.pods()
    cluster.finish(first)
    cluster.delete("pods", first)
    assert status(cluster)["succeeded"] == 1
    cluster.finish(cluster.pods()[0])
    assert ended(cluster) == ["Complete"]


def test_a_classic_sidecar_holds_the_job_open(cluster):
    """The node leaves the pod Running while any container runs: the job cannot know better."""
    cluster.create("jobs.batch", job(completions=1))
    cluster.ready(cluster.pods()[0], False)
    cluster.advance(3600)
    assert ended(cluster) == []


@pytest.mark.parametrize(
    ("indexes", "expected"), [((), ""), ((3,), "3"), ((0, 1), "0,1"), ((0, 1, 2, 5, 7, 8, 9), "0-2,5,7-9")]
)
def test_completed_indexes_are_written_as_the_api_writes_them(indexes, expected):
    assert indexes_text(frozenset(indexes)) == expected

"""Where a Job stands: what its pods add up to, and what follows. Pure.

Laws (pkg/controller/job/job_controller.go, batch/v1):
  1. A pod counts once, when it has ended; a pod that is being deleted before it succeeded counts as failed.
  2. Failed: more failures than backoffLimit (6), container restarts counted for restartPolicy OnFailure; or
     activeDeadlineSeconds over.
  3. Complete: `completions` successes (Indexed: one per index); without completions, one success and no pod left.
  4. After a failure the next pod waits 10 s, doubled per failure, at most 10 minutes.
"""

import datetime
import itertools
from collections.abc import Collection, Sequence

import msgspec

from meshtls.lab.controllers.objects import Obj, annotations_of, parse, status_of

INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0


class End(msgspec.Struct, frozen=True):
    """How a pod ended, and when that was seen."""

    succeeded: bool
    index: int | None
    at: datetime.datetime


class Tally(msgspec.Struct, frozen=True):
    """What has ended so far. `last_failure` is when the youngest failure was seen."""

    succeeded: int
    failed: int
    indexes: frozenset[int]
    last_failure: datetime.datetime | None


class Verdict(msgspec.Struct, frozen=True):
    """`kind`: "" while running, else Complete or Failed, with the condition's reason and message."""

    kind: str = ""
    reason: str = ""
    message: str = ""


def is_indexed(spec: Obj) -> bool:
    return spec.get("completionMode") == "Indexed"


def index_of(pod: Obj) -> int | None:
    written = annotations_of(pod).get(INDEX, "")
    return int(written) if written.isdigit() else None


def tally(spec: Obj, ends: Collection[End]) -> Tally:
    """An Indexed job's successes are its indexes'."""
    good, bad = ([end for end in ends if end.succeeded is value] for value in (True, False))
    indexes = frozenset(end.index for end in good if end.index is not None)
    last = max((end.at for end in bad), default=None)
    return Tally(len(indexes) if is_indexed(spec) else len(good), len(bad), indexes, last)


def deadline(job: Obj) -> datetime.datetime | None:
    """When activeDeadlineSeconds are over; None for a job without, or suspended."""
    seconds, started = job["spec"].get("activeDeadlineSeconds"), status_of(job).get("startTime")
    if seconds is None or not started or job["spec"].get("suspend"):
        return None
    return parse(started) + datetime.timedelta(seconds=seconds)


def verdict(job: Obj, done: Tally, active: Sequence[Obj], now: datetime.datetime) -> Verdict:
    """Whether the job is over, by laws 2 and 3."""
    spec, end = job["spec"], deadline(job)
    limit, asked = spec.get("backoffLimit", 6), spec.get("completions")
    restarts = sum(map(_restarts, active)) if spec["template"]["spec"].get("restartPolicy") == "OnFailure" else 0
    if done.failed > limit or (restarts and restarts >= max(limit, 1)):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if end is not None and now >= end:
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if done.succeeded >= asked if asked is not None else done.succeeded and not active:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return Verdict()


def missing(job: Obj, done: Tally, active: Sequence[Obj]) -> int:
    """Pods to add (negative: to remove) so that the job goes on in parallel as declared."""
    spec = job["spec"]
    parallel, asked = int(spec.get("parallelism", 1)), spec.get("completions")
    if spec.get("suspend"):
        return -len(active)
    if asked is not None:
        return int(min(parallel, asked - done.succeeded)) - len(active)
    # a work queue that one pod found empty gets no more
    return min(parallel - len(active), 0) if done.succeeded else parallel - len(active)


def backoff_left_s(done: Tally, now: datetime.datetime) -> float:
    """Seconds for which no further pod is made, by law 4."""
    if done.last_failure is None:
        return 0.0
    delay_s = min(FIRST_BACKOFF_S * 2.0 ** min(done.failed - 1, 10), LONGEST_BACKOFF_S)
    return max((done.last_failure + datetime.timedelta(seconds=delay_s) - now).total_seconds(), 0.0)


def indexes_text(indexes: frozenset[int]) -> str:
    """Completed indexes as the API writes them: 0-2,5."""
    runs = (
        [number for _, number in run]
        for _, run in itertools.groupby(enumerate(sorted(indexes)), lambda pair: pair[1] - pair[0])
    )
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _restarts(pod: Obj) -> int:
    fields = ("initContainerStatuses", "containerStatuses")
    return sum(one.get("restartCount", 0) for field in fields for one in status_of(pod).get(field) or ())

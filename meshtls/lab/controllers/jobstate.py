"""Where a Job stands: what its pods add up to, and what follows. Pure.

Laws (pkg/controller/job/job_controller.go, batch/v1):
  1. A pod counts once, when it has ended; a pod that is being deleted before it succeeded counts as failed.
  2. Failed: more failures than backoffLimit (6), container restarts counted for restartPolicy OnFailure; or
     activeDeadlineSeconds over.
  3. Complete: `completions` successes (Indexed: one per index); without completions, one success and no pod left.
  4. After a failure the next pod waits 10 s, doubled per failure, at most 10 minutes.
"""

import datetime
from collections.abc import Sequence

import msgspec

from meshtls.lab.controllers.clock import parse
from meshtls.lab.controllers.objects import Obj, annotations_of

INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0


class Tally(msgspec.Struct, frozen=True):
    """What has ended so far. `last_failure` is when the youngest failure was seen."""

    succeeded: int = 0
    failed: int = 0
    indexes: frozenset[int] = frozenset()
    last_failure: datetime.datetime | None = None


class Verdict(msgspec.Struct, frozen=True):
    """`kind`: "" while running, else Complete or Failed, with the condition's reason and message."""

    kind: str = ""
    reason: str = ""
    message: str = ""


def completions(spec: Obj) -> int | None:
    """How many successes are asked for; None for a work queue."""
    value = spec.get("completions")
    return None if value is None else int(value)


def is_indexed(spec: Obj) -> bool:
    return spec.get("completionMode") == "Indexed"


def index_of(pod: Obj) -> int | None:
    written = annotations_of(pod).get(INDEX, "")
    return int(written) if written.isdigit() else None


def verdict(job: Obj, tally: Tally, active: Sequence[Obj], now: datetime.datetime) -> Verdict:
    """Whether the job is over, by laws 2 and 3."""
    spec = job["spec"]
    started = (job.get("status") or {}).get("startTime")
    limit = spec.get("backoffLimit", 6)
    restarts = sum(map(_restarts, active)) if spec["template"]["spec"].get("restartPolicy") == "OnFailure" else 0
    if tally.failed > limit or (restarts and restarts >= max(limit, 1)):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.get("activeDeadlineSeconds")
    if (
        deadline is not None
        and started
        and now >= parse(started) + datetime.timedelta(seconds=deadline)
        and not spec.get("suspend")
    ):
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    asked = completions(spec)
    if is_indexed(spec):
        done = asked is not None and len(tally.indexes) >= asked
    elif asked is None:
        done = tally.succeeded > 0 and not active
    else:
        done = tally.succeeded >= asked
    return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if done else Verdict()


def missing(job: Obj, tally: Tally, active: Sequence[Obj]) -> int:
    """Pods to add (negative: to remove) so that the job goes on in parallel as declared."""
    spec = job["spec"]
    if spec.get("suspend"):
        return -len(active)
    parallel, asked = spec.get("parallelism", 1), completions(spec)
    if asked is None:
        wanted = len(active) if tally.succeeded and len(active) <= parallel else parallel
    else:
        wanted = min(parallel, asked - (len(tally.indexes) if is_indexed(spec) else tally.succeeded))
    return int(wanted) - len(active)


def backoff_left_s(tally: Tally, now: datetime.datetime) -> float:
    """Seconds for which no further pod is made, by law 4."""
    if tally.last_failure is None:
        return 0.0
    delay_s = min(FIRST_BACKOFF_S * 2.0 ** min(tally.failed - 1, 10), LONGEST_BACKOFF_S)
    return max((tally.last_failure + datetime.timedelta(seconds=delay_s) - now).total_seconds(), 0.0)


def indexes_text(indexes: frozenset[int]) -> str:
    """Completed indexes as the API writes them: 0-2,5."""
    spans: list[list[int]] = []
    for number in sorted(indexes):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a},{b}" for a, b in spans)


def _restarts(pod: Obj) -> int:
    status = pod.get("status") or {}
    return sum(
        one.get("restartCount", 0)
        for field in ("initContainerStatuses", "containerStatuses")
        for one in status.get(field) or ()
    )

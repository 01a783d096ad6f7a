"""A Deployment's status: counts, Available, Progressing and ReplicaFailure, as `kubectl rollout status` and `kubectl
wait` read them. Pure.

Laws (pkg/controller/deployment/{sync,progress}.go): complete means law 2 of `deployment`. Progress is any count that
got better; each refreshes lastUpdateTime, from which progressDeadlineSeconds (600 by default) runs. A rollout once
complete stays so while all its pods are new ones: when it loses a pod or is scaled, no deadline runs. A paused
Deployment makes no progress and misses no deadline.
"""

import datetime

from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.objects import Obj, annotations_of, name_of, parse, set_counts, status_of, text
from meshtls.lab.controllers.rollout import limits

REVISION = "deployment.kubernetes.io/revision"
COUNTS = ("replicas", "readyReplicas", "availableReplicas", "terminatingReplicas")
DONE, PAUSED, LATE = "NewReplicaSetAvailable", "DeploymentPaused", "ProgressDeadlineExceeded"


def is_complete(deployment: Obj) -> bool:
    """Whether the status says that the rollout is over."""
    status, replicas = status_of(deployment), deployment["spec"].get("replicas", 1)
    return (
        all(status.get(field, 0) == replicas for field in ("updatedReplicas", "replicas", "availableReplicas"))
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    )


def revision_of(obj: Obj) -> int:
    """The revision written on a Deployment or ReplicaSet; 0 if there is none."""
    written = annotations_of(obj).get(REVISION, "")
    return int(written) if written.isdecimal() else 0


def tell(deployment: Obj, new: Obj | None, olds: list[Obj], made: str, now: datetime.datetime) -> float | None:
    """Write revision and status of a Deployment for the ReplicaSets that it has; seconds until the progress deadline,
    or None. `made` is the name of a ReplicaSet just made, or ""."""
    if new and revision_of(new):
        deployment["metadata"].setdefault("annotations", {})[REVISION] = annotations_of(new)[REVISION]
    spec, status = deployment["spec"], deployment["status"]
    every, before = [*olds, *([new] if new else [])], dict(status)
    status["observedGeneration"] = deployment["metadata"]["generation"]
    counts = {field: sum(status_of(one).get(field, 0) for one in every) for field in COUNTS}
    wanted = sum(one["spec"].get("replicas", 1) for one in every)
    counts["unavailableReplicas"] = max(wanted - counts["availableReplicas"], 0)
    counts["updatedReplicas"] = status_of(new or {}).get("replicas", 0)
    set_counts(status, counts, always=("terminatingReplicas",))
    if counts["availableReplicas"] >= spec.get("replicas", 1) - limits(spec)[1]:
        value, reason, verb = "True", "MinimumReplicasAvailable", "has"
    else:
        value, reason, verb = "False", "MinimumReplicasUnavailable", "does not have"
    _say(status, "Available", value, reason, f"Deployment {verb} minimum availability.", text(now))
    failures = (conditions.find(one, "ReplicaFailure") for one in reversed(every))
    if failure := next((one for one in failures if one), None):
        since = failure["lastTransitionTime"]
        _say(status, "ReplicaFailure", failure["status"], failure["reason"], failure["message"], since)
    else:
        conditions.drop(status, "ReplicaFailure")
    if made:
        message = f'Created new replica set "{made}"'
        _say(status, "Progressing", "True", "NewReplicaSetCreated", message, text(now))
    return _follow(deployment, before, new, now)


def _follow(deployment: Obj, before: Obj, new: Obj | None, now: datetime.datetime) -> float | None:
    """Write Progressing; seconds until its deadline, or None."""
    spec, status, old = deployment["spec"], deployment["status"], conditions.find(deployment, "Progressing") or {}

    def say(value: str, reason: str, message: str, *, anew: bool = False) -> None:
        _say(status, "Progressing", value, reason, message, text(now), anew=anew)

    if spec.get("paused"):
        if old.get("reason") != LATE:
            say("Unknown", PAUSED, "Deployment is paused")
        return None
    if old.get("reason") == PAUSED:
        say("Unknown", "DeploymentResumed", "Deployment is resumed")
    subject = f'ReplicaSet "{name_of(new)}"' if new else f'Deployment "{name_of(deployment)}"'
    if old.get("reason") == DONE and status.get("replicas") == status.get("updatedReplicas"):
        return None
    if is_complete(deployment):
        say("True", DONE, f"{subject} has successfully progressed.")
        return None
    if not old or _is_better(status, before):
        say("True", "ReplicaSetUpdated", f"{subject} is progressing.", anew=True)
    elif old["reason"] in (DONE, LATE):
        return None
    since = parse((conditions.find(deployment, "Progressing") or {})["lastUpdateTime"])
    deadline = datetime.timedelta(seconds=spec.get("progressDeadlineSeconds", 600))
    left_s = (since + deadline - now).total_seconds()
    if left_s > 0:
        return left_s
    say("False", LATE, f"{subject} has timed out progressing.")
    return None


def _say(status: Obj, kind: str, value: str, reason: str, message: str, now: str, *, anew: bool = False) -> None:
    """A condition, which is the last then; unless `anew`, the same status and reason said again change nothing."""
    old = conditions.find({"status": status}, kind)
    if anew or old is None or (old["status"], old["reason"]) != (value, reason):
        conditions.put(status, kind, value, reason, message, now, lastUpdateTime=now)
        status["conditions"].sort(key=lambda one: bool(one["type"] == kind))


def _is_better(status: Obj, before: Obj) -> bool:
    def old_pods(one: Obj) -> int:
        return int(one.get("replicas", 0) - one.get("updatedReplicas", 0))

    better = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return any(status.get(one, 0) > before.get(one, 0) for one in better) or old_pods(status) < old_pods(before)

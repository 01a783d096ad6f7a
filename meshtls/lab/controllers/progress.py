"""A Deployment's status: counts, Available, Progressing and ReplicaFailure, as `kubectl rollout status` and `kubectl
wait` read them.

Laws: complete means law 2 of `deployment`. Progress is any count that got better; each refreshes lastUpdateTime, from
which progressDeadlineSeconds (600 by default) runs. A paused Deployment makes no progress and misses no deadline.
"""

import datetime

from meshtls.lab.api.store import clone
from meshtls.lab.controllers.clock import parse, text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, annotations_of, condition, drop_condition, key_of, set_condition
from meshtls.lab.controllers.rollout import limits

REVISION = "deployment.kubernetes.io/revision"


def is_complete(deployment: Obj) -> bool:
    """Whether the status says that the rollout is over."""
    status, replicas = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    return (
        all(status.get(field, 0) == replicas for field in ("updatedReplicas", "replicas", "availableReplicas"))
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    )


def revision_of(obj: Obj) -> int:
    """The revision written on a Deployment or ReplicaSet; 0 if there is none."""
    try:
        return int(annotations_of(obj).get(REVISION, "0"))
    except ValueError:
        return 0


def write(hands: Hands, seen: Obj, new: Obj | None, olds: list[Obj], made: str) -> float | None:
    """Bring status and revision up to date; seconds until the progress deadline, or None. `seen` is the generation
    acted upon,
    `made` the name of a ReplicaSet just made, or ""."""
    deployment = hands.store.get("deployments.apps", *key_of(seen))
    if deployment is None:
        return None
    now = hands.clock.now()
    draft = clone(deployment)
    status = draft.setdefault("status", {})
    before = dict(status)
    _count(status, seen, new, olds)
    _set_available(status, seen, now)
    _set_failure(status, new, olds, now)
    if made:
        set_condition(
            status,
            "Progressing",
            "True",
            "NewReplicaSetCreated",
            f'Created new replica set "{made}"',
            text(now),
            lastUpdateTime=text(now),
        )
    again = _set_progress(draft, before, new, now)
    if new is not None and revision_of(new):
        draft["metadata"].setdefault("annotations", {})[REVISION] = annotations_of(new)[REVISION]
    hands.store.update("deployments.apps", draft)
    return again


def _count(status: Obj, deployment: Obj, new: Obj | None, olds: list[Obj]) -> None:
    every = [one.get("status") or {} for one in ([*olds, new] if new else olds)]
    counts = {
        field: sum(one.get(field, 0) for one in every) for field in ("replicas", "readyReplicas", "availableReplicas")
    }
    counts["updatedReplicas"] = ((new or {}).get("status") or {}).get("replicas", 0)
    wanted = sum(one["spec"].get("replicas", 1) for one in ([*olds, new] if new else olds))
    counts["unavailableReplicas"] = max(wanted - counts["availableReplicas"], 0)
    for field, count in counts.items():
        if count:
            status[field] = count
        else:
            status.pop(field, None)
    status["observedGeneration"] = deployment["metadata"]["generation"]


def _set_available(status: Obj, deployment: Obj, now: datetime.datetime) -> None:
    least = deployment["spec"].get("replicas", 1) - limits(deployment["spec"])[1]
    old = condition({"status": status}, "Available")
    if status.get("availableReplicas", 0) >= least:
        value, reason, message = "True", "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        value, reason, message = "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    updated = old["lastUpdateTime"] if old and old["status"] == value else text(now)
    set_condition(status, "Available", value, reason, message, text(now), lastUpdateTime=updated)


def _set_failure(status: Obj, new: Obj | None, olds: list[Obj], now: datetime.datetime) -> None:
    failures = (condition(one, "ReplicaFailure") for one in ([new, *olds] if new else olds))
    failure = next((one for one in failures if one is not None), None)
    if failure is None:
        drop_condition(status, "ReplicaFailure")
        return
    set_condition(
        status,
        "ReplicaFailure",
        failure["status"],
        failure["reason"],
        failure["message"],
        text(now),
        lastUpdateTime=failure["lastTransitionTime"],
    )


def _set_progress(deployment: Obj, before: Obj, new: Obj | None, now: datetime.datetime) -> float | None:
    """Write Progressing; seconds until its deadline, or None."""
    status, spec = deployment["status"], deployment["spec"]
    old = condition(deployment, "Progressing")
    if spec.get("paused"):
        if old is None or old["reason"] != "DeploymentPaused":
            set_condition(
                status,
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused",
                text(now),
                lastUpdateTime=text(now),
            )
        return None
    subject = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    if is_complete(deployment):
        if old is None or old["reason"] != "NewReplicaSetAvailable" or not old["message"].startswith(subject):
            set_condition(
                status,
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                f"{subject} has successfully progressed.",
                text(now),
                lastUpdateTime=text(now),
            )
        return None
    if old is not None and old["reason"] == "NewReplicaSetAvailable" and _is_same_rollout(old, subject):
        return None
    if old is None or _is_better(status, before) or old["reason"] in ("DeploymentPaused", "NewReplicaSetAvailable"):
        set_condition(
            status,
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            f"{subject} is progressing.",
            text(now),
            lastUpdateTime=text(now),
        )
    since = parse((condition(deployment, "Progressing") or {})["lastUpdateTime"])
    left = (since + datetime.timedelta(seconds=spec.get("progressDeadlineSeconds", 600)) - now).total_seconds()
    if left > 0:
        return left
    set_condition(
        status,
        "Progressing",
        "False",
        "ProgressDeadlineExceeded",
        f"{subject} has timed out progressing.",
        text(now),
        lastUpdateTime=text(since),
    )
    return None


def _is_same_rollout(old: Obj, subject: str) -> bool:
    # a finished rollout that loses a pod, or is scaled, is no new rollout: no deadline runs
    return bool(old["message"].startswith(subject))


def _is_better(status: Obj, before: Obj) -> bool:
    def old_pods(one: Obj) -> int:
        return int(one.get("replicas", 0) - one.get("updatedReplicas", 0))

    return any(
        status.get(field, 0) > before.get(field, 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    ) or old_pods(status) < old_pods(before)

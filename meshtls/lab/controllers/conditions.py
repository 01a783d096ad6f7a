"""The conditions of a status: found, written, taken away. Pure."""

from meshtls.lab.controllers.objects import Obj, status_of


def find(obj: Obj, kind: str) -> Obj | None:
    """The status condition of that type."""
    return next((one for one in status_of(obj).get("conditions") or () if one["type"] == kind), None)


def holds(obj: Obj, kind: str) -> bool:
    """Whether that condition is True."""
    return (find(obj, kind) or {}).get("status") == "True"


def put(status: Obj, kind: str, value: str, reason: str, message: str, now: str, **times: str) -> None:
    """Write a condition; lastTransitionTime changes only with its status. `times` are further time fields, such as
    lastUpdateTime."""
    said = status.setdefault("conditions", [])
    old = find({"status": status}, kind)
    since = old["lastTransitionTime"] if old and old["status"] == value else now
    told = {"reason": reason, "message": message} if reason else {}
    new = {"type": kind, "status": value, **told, "lastTransitionTime": since, **times}
    if old is None:
        said.append(new)
    else:
        said[said.index(old)] = new


def drop(status: Obj, kind: str) -> None:
    if said := status.get("conditions"):
        status["conditions"] = [one for one in said if one["type"] != kind]

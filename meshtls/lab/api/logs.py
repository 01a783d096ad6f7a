"""pods/log: which container is meant and whether it can have a log; the lines come from the node's LogSource."""
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from meshtls.lab.api import parsing, status
from meshtls.lab.api.field import forbidden, invalid
from meshtls.lab.api.store import Store

Object = dict[str, Any]


class LogSource(Protocol):
    """Whoever has the containers' output. Lines end with a newline; `limit_bytes` cuts the whole."""

    def lines(self, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None,
              since_seconds: int | None,
              since_time: str | None, previous: bool, timestamps: bool,
              limit_bytes: int | None) -> AsyncIterator[bytes]:
        """May raise LookupError with the words for the client (no such container has run)."""


def options(query: Mapping[str, str], pod: str) -> Object:
    """The query as keyword arguments of LogSource.lines. Raises ApiError 400 or 422."""
    found: Object = {"follow": query.get("follow") in ("true", "1"), "previous": query.get("previous") in ("true", "1"),
                     "timestamps": query.get("timestamps") in ("true", "1"), "since_time": query.get("sinceTime")
                     or None}
    wrong = []
    for name, key, least in (("tailLines", "tail", 0), ("sinceSeconds", "since_seconds", 1),
                             ("limitBytes", "limit_bytes", 1)):
        found[key] = status.whole(query[name]) if name in query else None
        if name in query and found[key] < least:
            wrong.append(invalid(name, found[key], f"must be greater than {'or equal to ' if least == 0 else ''}0"))
    if found["since_time"] and found["since_seconds"]:
        wrong.append(forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if found["since_time"]:
        if fault := parsing.time_fault(found["since_time"]):
            raise status.bad_request(fault)
    if "stream" in query:
        wrong.append(forbidden("stream", "may not be specified"))
    if wrong:
        raise status.invalid("PodLogOptions", "", pod, wrong)
    return found


def container(store: Store, pod: Object, asked: str, previous: bool) -> str:
    """The container's name, "" when the pod has no node yet (an empty log). Raises ApiError."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    regular = [one["name"] for one in spec.get("containers") or ()]
    initial = [one["name"] for one in spec.get("initContainers") or ()]
    others = [one["name"] for one in spec.get("ephemeralContainers") or ()]
    if not asked:
        if len(regular) + len(initial) + len(others) > 1:
            raise status.bad_request(f"a container name must be specified for pod {name}, choose one of: "
                                     f"[{' '.join([*initial, *regular, *others])}]")
        asked = regular[0]
    if asked not in [*regular, *initial, *others]:
        raise status.bad_request(f"container {asked} is not valid for pod {name}")
    if not spec.get("nodeName"):
        return ""
    if store.get("nodes", "", spec["nodeName"]) is None:
        raise status.not_found("pods", spec["nodeName"])
    held = pod.get("status") or {}
    states = [*(held.get("containerStatuses") or ()), *(held.get("initContainerStatuses") or ()),
              *(held.get("ephemeralContainerStatuses") or ())]
    state = next((one for one in states if one["name"] == asked), None)
    if previous and not (state or {}).get("lastState", {}).get("terminated"):
        raise status.bad_request(f'previous terminated container "{asked}" in pod "{name}" not found')
    waiting = (state or {}).get("state", {}).get("waiting") if state else None
    if waiting and not (state or {}).get("lastState", {}).get("terminated"):
        raise status.bad_request(f'container "{asked}" in pod "{name}" is waiting to start: '
                                 f'{waiting.get("reason", "ContainerCreating")}')
    return asked

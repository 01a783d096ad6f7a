"""What a probe pod's object says: is it what it was made to be, does it run, and what is it waiting for?  Pure."""

from collections.abc import Callable
from typing import Any

# An image that cannot be had, or a container that cannot be made: no waiting helps.
HOPELESS = (
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
    "ErrImageNeverPull",
)


def wrong_sidecar(pod: dict[str, Any], meshed: bool) -> str:
    """Why this pod is not what it was made to be, or ""."""
    spec = pod.get("spec") or {}
    proxy = any(
        c.get("name") == "istio-proxy" for c in (spec.get("containers") or []) + (spec.get("initContainers") or [])
    )
    if meshed and not proxy:
        return "was not injected (no istio-proxy in it): is injection on, and which revision? see --revision"
    if not meshed and proxy:
        return "was injected although its label forbids it"
    if not meshed and ((pod["metadata"].get("annotations") or {}).get("ambient.istio.io/redirection") == "enabled"):
        return "was captured by the ambient mesh although its label forbids it"
    return ""


def ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def started(pod: dict[str, Any]) -> bool:
    """Whether the agent's container has a log: it runs, or it is done."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("name") == "probe":
            state = status.get("state") or {}
            return "running" in state or "terminated" in state
    return False


def hopeless(pod: dict[str, Any], ready: Callable[[dict[str, Any]], bool]) -> str:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and not ready(pod):
        return f"failed: {state(pod)}"
    return state(pod) if any(reason in HOPELESS for reason in _waiting(status)) else ""


def _waiting(status: dict[str, Any]) -> list[str]:
    every = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    return [((entry.get("state") or {}).get("waiting") or {}).get("reason", "") for entry in every]


def state(pod: dict[str, Any] | None) -> str:
    """What a pod waits for, in Kubernetes' words."""
    if pod is None:
        return "no such pod"
    status = pod.get("status") or {}
    every = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    said = [f"phase {status.get('phase') or 'unknown'}", status.get("reason", ""), status.get("message", "")]
    for entry in every:
        state = entry.get("state") or {}
        about = state.get("waiting") or (
            (state.get("terminated") or {}) if (state.get("terminated") or {}).get("exitCode") else {}
        )
        if about:
            said.append(f"{entry.get('name')} {about.get('reason', '')} {about.get('message', '')}".strip())
    said += [
        c.get("message", "") for c in status.get("conditions") or [] if c.get("status") == "False" and c.get("message")
    ]
    return "; ".join(dict.fromkeys(part for part in said if part))[:400]

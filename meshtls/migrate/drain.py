"""What a change of the mode does to connections that are open already.

A sidecar ends them within its `drainDuration`, those over mTLS too: the pod's annotation `proxy.istio.io/config` says it before
the mesh's own configuration. A ztunnel leaves them open, plaintext too, until the client ends them; only new ones are refused.
"""

from collections.abc import Iterator

import yaml

from meshtls.model.mesh import Mesh

_AMBIENT = ("ambient pods keep the connections that are open already, in plaintext too: "
            "STRICT is complete only when their clients have connected again")  # fmt: skip


def durations(mesh: Mesh, namespace: str) -> Iterator[str]:
    """Every `drainDuration` that proxies of the namespace may have, as it is written ("" where none is)."""
    for config in mesh.configs.values():
        yield config.default_config.drain_duration
    for pod in mesh.pods:
        if pod.namespace == namespace and (text := pod.annotations.get("proxy.istio.io/config")):
            try:
                said = yaml.safe_load(text)
            except yaml.YAMLError:
                continue  # the injector refuses such a pod
            yield str(said.get("drainDuration") or "") if isinstance(said, dict) else ""


def notes(mesh: Mesh, namespace: str, drain_s: float) -> tuple[str, ...]:
    """What to say before the first change. `drain_s` is the longest of the durations, in seconds."""
    pods = [pod for pod in mesh.pods if pod.namespace == namespace]
    ambient = any(pod.captured for pod in pods)
    sidecars = not ambient or any(pod.has_sidecar for pod in pods)
    return (*((f"every stage ends the open connections into its workloads within {drain_s:g} s, those over mTLS too",) if sidecars else ()),
            *((_AMBIENT,) if ambient else ()))  # fmt: skip

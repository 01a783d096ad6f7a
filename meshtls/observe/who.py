"""An address -> who has it: workload, pod, node. Unknown stays unknown, with the reason.

    1. one pod has the address                 that pod, named by its workload
    2. several had it, one after another       the last one created before the line was written
    3. it is a node's address                  the node: kubelet, a node agent, or one of its host-network pods
    4. it came from X-Forwarded-For            unknown: a proxy in front of us told it, and did not sign
    5. nothing has it                          unknown: outside the cluster, or a pod that is gone
"""

import msgspec

from meshtls.model.mesh import Mesh, pod_addresses
from meshtls.model.objects import Pod
from meshtls.observe.accesslog import Usage

UNKNOWN = "unknown"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who an address is. `name` is what people read: `legacy/billing` of `Deployment/legacy/billing`, `node worker-1`.

    `ref` is `Kind/namespace/name` of the workload ("" for unknown), `meshed` whether a proxy runs beside it, `own`
    whether it is a probe of meshtls itself. `note` is what the reader should know about the attribution.
    """

    name: str
    address: str
    ref: str = ""
    pod: str = ""
    node: str = ""
    meshed: bool = False
    own: bool = False
    forwarded: bool = False
    note: str = ""

    @property
    def known(self) -> bool:
        return bool(self.ref)

    def __str__(self) -> str:
        if not self.known:
            return f"unknown client {self.address}" + (f" ({self.note})" if self.note else "")
        parts = [f"pod {self.pod}" if self.pod else "", self.address, f"on node {self.node}" if self.node else "", self.note]
        return f"{self.ref} ({', '.join(part for part in parts if part)})"


class Directory:
    """Looks clients up in one reading of the cluster."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._pods: dict[str, list[Pod]] = {}
        self._nodes: dict[str, str] = {}
        self._host_pods: dict[str, list[str]] = {}
        for pod in mesh.pods:
            if pod.status.host_ip:
                self._nodes[pod.status.host_ip] = pod.spec.node_name
            if pod.spec.host_network:
                for address in pod_addresses(pod):
                    self._host_pods.setdefault(address, []).append(f"{pod.namespace}/{pod.name}")
                continue
            for address in pod_addresses(pod):
                self._pods.setdefault(address, []).append(pod)
        for found in self._pods.values():
            found.sort(key=lambda pod: (pod.metadata.creation_timestamp or "", pod.name))

    def client(self, usage: Usage) -> Client:
        """Who sent this."""
        if usage.forwarded:
            return Client(name=UNKNOWN, address=usage.client, forwarded=True, note="the address is from X-Forwarded-For")
        pods = self._pods.get(usage.client, [])
        # creation times are whole seconds in UTC, and both forms sort as text up to that second
        then = [pod for pod in pods if (pod.metadata.creation_timestamp or "")[:19] <= usage.at[:19]]
        if pods and not then:
            return Client(name=UNKNOWN, address=usage.client, note="the pod that has the address now is younger than this")
        if then:
            return self._of_pod(then[-1], usage.client)
        if usage.client in self._nodes or usage.client in self._host_pods:
            return self._of_node(usage.client)
        if usage.named:
            namespace, _, workload = usage.named.partition("/")
            return Client(name=usage.named, address=usage.client, ref=f"Workload/{namespace}/{workload}")
        if "Pod" in self._mesh.absent:
            return Client(name=UNKNOWN, address=usage.client, note=f"pods: {self._mesh.absent['Pod']}")
        return Client(name=UNKNOWN, address=usage.client, note="no pod or node has this address: outside the cluster, or gone")

    def server(self, usage: Usage) -> str:
        """`Kind/namespace/name` of the workload that was reached; "" where its pod is gone."""
        pods = self._pods.get(usage.server)
        return self._workload(pods[-1]) if pods else ""

    def _workload(self, pod: Pod) -> str:
        workload = self._mesh.workload_of_pod.get((pod.namespace, pod.name))
        return workload.ref if workload else pod.ref

    def _of_pod(self, pod: Pod, address: str) -> Client:
        ref = self._workload(pod)
        gone = pod.status.phase in ("Succeeded", "Failed")
        return Client(
            name=ref.partition("/")[2], address=address, ref=ref, pod=pod.name, node=pod.spec.node_name,
            meshed=has_proxy(pod), own=pod.labels.get("app.kubernetes.io/managed-by") == "meshtls",
            note=f"the last pod that had the address, now {pod.status.phase}" if gone else "",
        )

    def _of_node(self, address: str) -> Client:
        node = self._nodes.get(address, "")
        pods = sorted(self._host_pods.get(address, []))
        others = f", or of its host network: {', '.join(pods[:5])}{' ...' if len(pods) > 5 else ''}" if pods else ""
        return Client(name=f"node {node or address}", address=address, ref=f"Node/{node or address}", node=node,
                      note=f"kubelet or another process of the node{others}")


def has_proxy(pod: Pod) -> bool:
    """Whether a sidecar runs in the pod, or ztunnel takes its traffic."""
    return pod.captured or pod.has_sidecar

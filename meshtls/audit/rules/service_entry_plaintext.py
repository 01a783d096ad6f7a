"""A ServiceEntry that leads to workloads of the mesh, declared so that clients send plaintext.

MESH_EXTERNAL never uses mTLS by itself; `resolution: NONE` has no endpoints to ask; a WorkloadEntry gets mTLS only with the
label `security.istio.io/tlsMode: istio` or a service account.
"""

import ipaddress
from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload


def find(facts: Facts) -> Iterator[Flaw]:
    for entry in facts.mesh.service_entries:
        w = _inside(facts, entry)
        if w is None or not facts.refuses(w):
            continue
        spec = entry.spec
        if spec.location != "MESH_INTERNAL":
            why, path = "location is MESH_EXTERNAL", ("spec", "location")
        elif spec.resolution == "NONE":
            why, path = "resolution is NONE", ("spec", "resolution")
        elif any(not _mtls(e) for e in spec.endpoints):
            why, path = "an endpoint has neither serviceAccount nor the label security.istio.io/tlsMode: istio", ("spec", "endpoints")
        else:
            continue
        yield Flaw(
            subject=entry.ref,
            path=path,
            message=f"Meshed clients send plaintext through this ServiceEntry to {w.ref}, because {why}: STRICT refuses it.",
            because=("clients use mTLS only with endpoints that are known to be in the mesh",),
            fix="spec:\n  location: MESH_INTERNAL\n  resolution: STATIC\nand give each endpoint its serviceAccount.",
            affects=(w.namespace,),
        )


def _mtls(endpoint: o.WorkloadEntrySpec) -> bool:
    label = endpoint.labels.get("security.istio.io/tlsMode")
    return label == "istio" or (label is None and bool(endpoint.service_account))


def _inside(facts: Facts, entry: o.ServiceEntry) -> Workload | None:
    """A workload of the mesh that the entry leads to: by the address of a pod or Service, or by a Service's own name."""
    for host in entry.spec.hosts:
        if ".svc." in f"{host}." and (service := facts.service(host, entry.namespace)) and (behind := facts.behind(service)):
            return behind[0]
    for text in (*(e.address for e in entry.spec.endpoints), *entry.spec.addresses):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            if ".svc." in f"{text}." and (service := facts.service(text, entry.namespace)) and (behind := facts.behind(service)):
                return behind[0]
            continue
        if network.num_addresses == 1:
            address = str(network.network_address)
            pod = facts.mesh.pod_by_ip.get(address)
            if pod:
                return facts.mesh.workload_of_pod.get((pod.namespace, pod.name))
            if (service := _by_address(facts).get(address)) and (behind := facts.behind(service)):
                return behind[0]
        else:
            for address, pod in facts.mesh.pod_by_ip.items():
                if _within(address, network) and (w := facts.mesh.workload_of_pod.get((pod.namespace, pod.name))) and facts.refuses(w):
                    return w
    return None


def _by_address(facts: Facts) -> dict[str, o.Service]:
    memo = facts.memo("by address")
    if not memo:
        memo.update({a: s for s in facts.mesh.services for a in (s.spec.cluster_ip, *s.spec.cluster_ips) if a and a != "None"})
    return memo


def _within(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


RULE = Rule(code="MT218", title="A ServiceEntry leads into the mesh in plaintext", severity=Severity.ERROR,
            catalogue=("CL-10",), about=("ServiceEntry",), needs=("Pod", "Service", "Namespace", "PeerAuthentication"), find=find)

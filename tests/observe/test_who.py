"""Addresses become clients, or stay unknown with the reason."""

import msgspec
import pytest

from meshtls.model.check import Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe.accesslog import Usage, Verdict
from meshtls.observe.senders import Group, check, finding
from meshtls.observe.who import Directory


def pod(name: str, ip: str, created: str = "2026-01-01T00:00:00Z", *, owner: tuple[str, str] | None = None, phase: str = "Running",
        namespace: str = "legacy", labels: dict | None = None, host: bool = False, sidecar: bool = False) -> Pod:
    meta = {"name": name, "namespace": namespace, "creationTimestamp": created, "labels": labels or {}}
    if owner:
        meta["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    containers = [{"name": "app"}] + ([{"name": "istio-proxy"}] if sidecar else [])
    return msgspec.convert({
        "metadata": meta, "spec": {"nodeName": "n1", "hostNetwork": host, "containers": containers},
        "status": {"phase": phase, "podIP": ip, "hostIP": "192.168.0.1"},
    }, Pod)


def usage(client: str, **changes: object) -> Usage:
    base = Usage(at="2026-06-01T00:00:00.5Z", client=client, server="10.0.0.5", port=8080, verdict=Verdict.PLAINTEXT)
    return msgspec.structs.replace(base, **changes)


MESH = Mesh(pods=(
    pod("billing-7c9-x", "10.0.0.9", owner=("ReplicaSet", "billing-7c9"), labels={"pod-template-hash": "7c9"}),
    pod("export-1", "10.0.0.7", "2026-01-01T00:00:00Z", phase="Succeeded", owner=("Job", "export")),
    pod("later", "10.0.0.7", "2026-07-01T00:00:00Z"),
    pod("agent", "192.168.0.1", host=True),
    pod("gateway", "10.0.0.5", namespace="payments", sidecar=True),
    pod("probe", "10.0.0.8", labels={"app.kubernetes.io/managed-by": "meshtls"}),
    pod("young", "10.0.0.6", "2026-07-01T00:00:00Z"),
))


@pytest.mark.parametrize(
    ("client", "ref", "words"),
    [
        ("10.0.0.9", "Deployment/legacy/billing", "pod billing-7c9-x"),
        ("10.0.0.7", "Job/legacy/export", "the last pod that had the address, now Succeeded"),
        ("192.168.0.1", "Node/n1", "kubelet or another process of the node, or of its host network: legacy/agent"),
        ("10.0.0.6", "", "younger than this"),
        ("203.0.113.9", "", "outside the cluster, or gone"),
    ],
)
def test_an_address_is_the_workload_that_had_it_then(client, ref, words) -> None:
    found = Directory(MESH).client(usage(client))

    assert found.ref == ref
    assert words in str(found)


def test_a_forwarded_address_is_unknown_even_if_a_pod_has_it() -> None:
    assert not Directory(MESH).client(usage("10.0.0.9", forwarded=True)).known


def test_what_ztunnel_names_is_used_where_no_pod_is_found() -> None:
    assert Directory(MESH).client(usage("10.9.9.9", named="raw/cli")).ref == "Workload/raw/cli"


def test_where_pods_may_not_be_listed_the_reason_is_said() -> None:
    assert "not allowed" in str(Directory(Mesh(absent={"Pod": "not allowed"})).client(usage("10.0.0.9")))


def test_senders_count_and_name_both_ends() -> None:
    group = Group(Directory(MESH))
    group.add(usage("10.0.0.9", at="2026-06-01T00:00:02Z"))
    group.add(usage("10.0.0.9", at="2026-06-01T00:00:01Z"))

    (sender,) = group.senders

    assert (sender.count, sender.first, sender.last) == (2, "2026-06-01T00:00:01Z", "2026-06-01T00:00:02Z")
    assert sender.server == "Pod/payments/gateway"
    found = finding(sender)
    assert found is not None
    assert (found.code, found.subject) == ("MT601", "Deployment/legacy/billing")
    assert "Deployment/legacy/billing (pod billing-7c9-x, 10.0.0.9, on node n1) sends plaintext to Pod/payments/gateway port 8080" in found.message
    assert found.message.endswith("port 8080: 2 times, last at 2026-06-01T00:00:02Z")


def test_one_arrival_is_said_once() -> None:
    group = Group(Directory(MESH))
    group.add(usage("10.0.0.9", at="2026-06-01T00:00:02Z"))

    found = finding(group.senders[0])

    assert found is not None and found.message.endswith("port 8080: once, at 2026-06-01T00:00:02Z")


def test_mtls_and_our_own_probes_are_no_findings() -> None:
    group = Group(Directory(MESH))
    group.add(usage("10.0.0.8"))
    group.add(usage("10.0.0.9", verdict=Verdict.MTLS))

    result = check("Pod/payments/gateway", group.senders)

    assert (result.status, result.findings) == (Status.PASS, ())

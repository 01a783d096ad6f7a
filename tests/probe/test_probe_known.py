"""What the policies say of our own pods, as they were created."""

import datetime

import pytest
from msgspec import convert
from msgspec.structs import replace
from world import Cluster, a_plan, mesh, pod

from meshtls.cluster.owned import Run
from meshtls.model.objects import DestinationRule, PeerAuthentication
from meshtls.probe import run as hand
from meshtls.probe.case import HTTP, Mode, Outcome
from meshtls.probe.deploy import Settings
from meshtls.probe.expect import expectation
from meshtls.probe.known import Known, with_ours

PLAN = a_plan("a", "b")
S, P, N = Mode.STRICT, Mode.PERMISSIVE, Mode.UNENFORCED


@pytest.fixture(scope="module")
def collected():
    run = Run("r1", "probe", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    made = hand.Collected(PLAN)
    hand.collect(Cluster(PLAN), run, Settings(run="r1"), hand.Programs("", ""), {}, made)
    return made


def policy(namespace, mode, name="default", ports=None, labels=None):
    spec = (
        {"mtls": {"mode": mode}}
        | ({"portLevelMtls": ports} if ports else {})
        | ({"selector": {"matchLabels": labels}} if labels else {})
    )
    return convert(
        {"metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec},
        PeerAuthentication,
    )


def rule(namespace, host, mode):
    return convert(
        {
            "metadata": {"name": "r", "namespace": namespace},
            "spec": {"host": host, "trafficPolicy": {"tls": {"mode": mode}}},
        },
        DestinationRule,
    )


def expected(collected, policies=(), rules=(), absent=None):
    world = replace(
        mesh("a", "b"), peer_authentications=tuple(policies), destination_rules=tuple(rules), absent=absent or {}
    )
    known = Known(with_ours(world, collected.live), collected.names)
    return {case.id: known.expect(case) for case in PLAN.cases}


def test_without_a_policy_everything_is_as_the_table_says_for_permissive(collected):
    found = expected(collected)

    for case in PLAN.cases:
        by_table = expectation(case, P if case.server.meshed else N)
        assert (found[case.id].outcome, found[case.id].mesh_cert) == (by_table.outcome, by_table.mesh_cert), case


def test_a_strict_namespace_is_strict_for_our_pods_in_it(collected):
    found = expected(collected, [policy("b", "STRICT")])

    for case in PLAN.cases:
        mode = N if not case.server.meshed else S if case.server.namespace == "b" else P
        assert found[case.id].outcome is expectation(case, mode).outcome, case


def test_the_reason_names_the_policy(collected):
    found = expected(collected, [policy("b", "STRICT")])
    case = next(c for c in PLAN.cases if c.server.namespace == "b" and c.server.meshed)

    assert "PeerAuthentication/b/default spec.mtls.mode: the namespace is STRICT" in found[case.id].because


def test_a_wildcard_rule_that_turns_tls_off_counts_for_our_services_too(collected):
    found = expected(collected, [policy("b", "STRICT")], [rule("istio-system", "*.local", "DISABLE")])
    by_service = {
        c.server: found[c.id].outcome
        for c in PLAN.cases
        if c.offer.name == "mtls" and c.port == HTTP and c.client.namespace == "a"
    }

    assert {(s.namespace, s.meshed): o for s, o in by_service.items()} == {
        ("a", True): Outcome.PLAINTEXT, ("a", False): Outcome.PLAINTEXT, ("b", True): Outcome.REFUSED, ("b", False): Outcome.PLAINTEXT,
    }  # fmt: skip


def test_policies_that_could_not_be_read_leave_no_expectation(collected):
    found = expected(collected, absent={"PeerAuthentication": "forbidden"})

    assert {found[c.id].outcome for c in PLAN.cases if c.server.meshed} == {None}
    assert {found[c.id].outcome for c in PLAN.cases if not c.server.meshed and not c.client.meshed} == {
        Outcome.PLAINTEXT,
        Outcome.REFUSED,
    }


def test_a_pod_that_never_came_up_has_no_expectation(collected):
    known = Known(mesh("a", "b"))

    assert known.expect(PLAN.cases[0]).outcome is None


@pytest.mark.parametrize("fields, mode", [
    ({}, N),
    ({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}]}}, S),
    ({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}}, S),
    ({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}, "metadata": {"labels": {"app": "db"}}}, P),
    ({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
      "metadata": {"annotations": {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}}}, N),
])  # fmt: skip
def test_the_mode_of_a_pod_that_was_there(fields, mode):
    there = pod("web", **fields)
    policies = (policy("a", "STRICT"), policy("a", "PERMISSIVE", "db", {"9000": {"mode": "STRICT"}}, {"app": "db"}))
    world = replace(mesh("a", pods=[there]), peer_authentications=policies)

    assert Known(world).of_pod(there, 8080)[0] is mode

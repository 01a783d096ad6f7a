"""The hand: what it creates it removes, whatever happens, and what it did not hear was not measured."""

import datetime

import pytest
from world import Cluster, a_plan, mesh

from meshtls.cluster.owned import Run
from meshtls.errors import ClusterError, DeadlineError, Forbidden
from meshtls.model.check import Status
from meshtls.probe import compare
from meshtls.probe import run as hand
from meshtls.probe.case import HTTP, TCP, Mode, Outcome
from meshtls.probe.deploy import Settings
from meshtls.probe.known import Known

RUN = Run("r1", "probe", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
PLAN = a_plan("a", "b")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(hand, "POLL_S", 0.001)


def collect(cluster, plan=PLAN, **more):
    cluster.plan = plan
    collected = hand.Collected(plan)
    error = None
    try:
        hand.collect(
            cluster, RUN, Settings(run="r1"), hand.Programs("agent", "echo"), {"unknown-ca": "PEM"}, collected, **more
        )
    except BaseException as caught:
        error = caught
    return collected, error


def test_every_question_is_answered_and_nothing_is_left():
    cluster = Cluster(modes={(s, p): Mode.STRICT for s in PLAN.servers for p in (HTTP, TCP)})
    collected, error = collect(cluster)

    assert error is None
    assert collected.observations.keys() == {case.id for case in PLAN.cases}
    assert cluster.objects == {}
    assert collected.left == []


def test_what_was_created_last_is_removed_first():
    cluster = Cluster()
    collect(cluster)
    made = [entry[1:] for entry in cluster.log if entry[0] == "create"]
    gone = [entry[1:] for entry in cluster.log if entry[0] == "delete"]

    assert sorted(made) == sorted(gone)
    assert {kind for kind, *_ in gone[-2:]} == {"ConfigMap"}  # the code that every pod mounts goes last


def test_everything_carries_owner_run_and_expiry():
    seen = []
    collect(Cluster(after_create=seen.append))

    assert seen
    for obj in seen:
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshtls"
        assert obj["metadata"]["labels"]["meshtls.dev/run"] == "r1"
        assert obj["metadata"]["annotations"]["meshtls.dev/expires"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("kind, number", [("ConfigMap", 1), ("Service", 1), ("Pod", 1), ("Pod", 5), ("ConfigMap", 5)])
def test_an_interrupt_at_any_creation_leaves_nothing(kind, number):
    count = 0

    def after(obj):
        nonlocal count
        count += obj["kind"] == kind
        if count == number and obj["kind"] == kind:
            raise KeyboardInterrupt

    cluster = Cluster(after_create=after)
    _, error = collect(cluster)

    assert isinstance(error, KeyboardInterrupt)
    assert cluster.objects == {}


def test_an_interrupt_while_answers_come_keeps_those_that_came():
    def progress(text):
        if "questions" in text:
            raise KeyboardInterrupt

    cluster = Cluster()
    collected, error = collect(cluster, progress=progress)

    assert isinstance(error, KeyboardInterrupt)
    assert cluster.objects == {}


def test_an_interrupt_during_the_removal_does_not_stop_it():
    asked = []

    def on_delete(*key):
        asked.append(key)
        if len(asked) == 3:
            raise KeyboardInterrupt

    cluster = Cluster(on_delete=on_delete)
    _, error = collect(cluster)

    assert isinstance(error, KeyboardInterrupt)
    assert cluster.objects == {}


def test_what_cannot_be_removed_is_named():
    def on_delete(kind, namespace, name):
        if kind == "Service":
            raise Forbidden("not allowed", status=403)

    collected, _ = collect(Cluster(on_delete=on_delete))

    assert len(collected.left) == len(PLAN.servers)
    assert all(left.startswith("Service/") and left.endswith("not allowed") for left in collected.left)


def test_keep_leaves_everything():
    cluster = Cluster()
    collect(cluster, keep=True)

    assert {kind for kind, *_ in cluster.objects} == {"Pod", "Service", "ConfigMap"}


def test_pods_that_the_clusters_rules_refuse_are_skipped_with_the_reason():
    def refuse(obj, dry_run):
        if (
            obj["kind"] == "Pod"
            and obj["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
            and obj["metadata"]["namespace"] == "b"
        ):
            return 'pods "x" is forbidden: violates PodSecurity "baseline:latest"'

    cluster = Cluster(refuse=refuse)
    collected, error = collect(cluster)

    assert error is None
    assert [(check.status, "PodSecurity" in check.reason) for check in collected.plan.skipped] == [("SKIP", True)] * 2
    assert all(seen.outcome is not Outcome.NOT_RUN or seen.answered for seen in collected.observations.values())


def test_no_permission_at_all_is_an_error_before_anything_is_created():
    cluster = Cluster(refuse=lambda obj, dry_run: 'pods is forbidden: User "u" cannot create resource "pods"')
    collected, error = collect(cluster)

    assert isinstance(error, ClusterError)
    assert cluster.log == []


def test_a_pod_that_was_not_injected_is_never_asked_for_a_sidecar():
    collected, error = collect(Cluster(never_inject=True))
    meshed = [collected.observations[c.id] for c in PLAN.cases if c.client.meshed or c.server.meshed]

    assert error is None
    assert {seen.outcome for seen in meshed} == {Outcome.NOT_RUN}
    assert all("was not injected" in seen.detail for seen in meshed)


def test_a_pod_that_never_becomes_ready_leaves_its_questions_not_run_with_its_state():
    collected, _ = collect(Cluster(never_ready=True), ready_s=0.05)

    assert {seen.outcome for seen in collected.observations.values()} == {Outcome.NOT_RUN}
    assert any(
        "not ready after 0.05 s" in seen.detail and "not yet" in seen.detail for seen in collected.observations.values()
    )


def test_an_image_that_cannot_be_had_is_told_at_once():
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    collected, _ = collect(Cluster(never_ready=True, state=waiting))

    assert all("ImagePullBackOff" in seen.detail for seen in collected.observations.values())


def test_a_log_that_breaks_off_is_read_again():
    collected, _ = collect(Cluster(lines=lambda lines, follow: lines[:3] if follow else lines))

    assert collected.observations.keys() == {case.id for case in PLAN.cases}
    assert not any("ended early" in seen.detail for seen in collected.observations.values())


def test_a_log_that_stays_short_leaves_the_rest_not_run():
    collected, _ = collect(Cluster(lines=lambda lines, follow: lines[:3]))
    missing = [seen for seen in collected.observations.values() if seen.detail == "the agent's log ended early"]

    assert len(missing) == len(PLAN.cases) - 2 * len(PLAN.clients)


def test_tcp_through_two_sidecars_is_proved_by_the_servers_log():
    def access_log(cluster):
        pods = {name: obj["status"]["podIP"] for (kind, _, name), obj in cluster.objects.items() if kind == "Pod"}
        agents = [
            ip
            for (kind, ns, name), obj in cluster.objects.items()
            if kind == "Pod" and name.endswith("agent-meshed")
            for ip in [obj["status"]["podIP"]]
        ]
        echoes = [ip for name, ip in pods.items() if name.endswith("echo-meshed")]
        echoes += [
            obj["status"]["podIP"]
            for (kind, ns, name), obj in cluster.objects.items()
            if kind == "Pod" and name.endswith("echo-meshed")
        ]
        return [f'"- - -" 0 {to}:9000 {source}:33 outbound_.9000_._.x -' for to in echoes for source in agents]

    collected, _ = collect(Cluster(access_log=access_log))

    assert collected.logged == {
        c.id for c in PLAN.cases if c.offer.name == "mtls" and c.port == TCP and c.server.meshed
    }


def test_a_dry_run_shows_every_object_and_creates_none():
    objects = list(hand.manifests(PLAN, Settings(run="r1"), hand.Programs("agent", "echo"), {"unknown-ca": "PEM"}))

    assert [obj["kind"] for obj in objects].count("Pod") == len(PLAN.clients) + len(PLAN.servers)


def test_a_run_that_ends_while_pods_are_pulled_says_what_they_waited_for(monkeypatch):
    """A --timeout shorter than --ready-timeout: the reason is the pod's own, and no check passes or is merely skipped."""
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    looked = 0
    list_ = Cluster.list

    def once(self, kind, *arguments, **more):
        nonlocal looked
        looked += kind == "Pod"
        if looked > 2 and kind == "Pod":  # each of the two namespaces was looked at once
            raise DeadlineError("the time given by --timeout is over")
        return list_(self, kind, *arguments, **more)

    monkeypatch.setattr(Cluster, "list", once)
    collected, error = collect(Cluster(never_ready=True, state=waiting))
    seen = compare.Seen(PLAN, collected.observations)
    checks = compare.checks([compare.judge(case, Known(mesh("a", "b")).expect(case), seen) for case in PLAN.cases])

    assert isinstance(error, DeadlineError)
    assert {check.status for check in checks} == {Status.ERROR}
    assert all("ErrImagePull" in check.reason and "no such image" in check.reason for check in checks)

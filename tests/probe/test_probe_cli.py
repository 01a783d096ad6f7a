"""The verb: what is printed, which report is written, and how it exits."""

import json
import os
import signal

import pytest
import yaml
from click.testing import CliRunner
from msgspec import convert
from world import Cluster, a_plan, mesh, pod

import meshtls.sources
from meshtls.cli.probe import probe
from meshtls.cluster import client as client_module
from meshtls.errors import NotFound
from meshtls.model.objects import PeerAuthentication, Service
from meshtls.probe import run as hand
from meshtls.probe.case import HTTP, TCP, Mode


class World:
    """A cluster and the mesh read from it, for one test."""

    def __init__(self):
        self.mesh = mesh("a", "b")
        self.cluster = Cluster()
        self.cluster.namespace = "a"
        self.runner = CliRunner()

    def __call__(self, *arguments):
        return self.runner.invoke(probe, arguments)


class Fake(Cluster):
    """The cluster as a context manager that knows two namespaces."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def get(self, kind, name, namespace=None):
        if kind == "Namespace" and name in ("a", "b"):
            return {"metadata": {"name": name}}
        raise NotFound(f"{name} not found", status=404)


@pytest.fixture
def world(monkeypatch):
    made = World()
    made.cluster = Fake()
    made.cluster.namespace = "a"
    monkeypatch.setattr(client_module.Client, "connect", lambda *args, **named: made.cluster)
    monkeypatch.setattr(meshtls.sources, "load", lambda *args, **named: made.mesh)
    monkeypatch.setattr(hand, "POLL_S", 0.001)
    made.cluster.plan = a_plan("a", "b")
    return made


def strict(namespace):
    return convert(
        {"metadata": {"name": "default", "namespace": namespace}, "spec": {"mtls": {"mode": "STRICT"}}},
        PeerAuthentication,
    )


def test_a_mesh_that_behaves_as_its_policies_say_exits_with_0_and_leaves_nothing(world):
    from msgspec.structs import replace

    world.mesh = replace(world.mesh, peer_authentications=(strict("a"), strict("b")))
    world.cluster.modes = {(s, p): Mode.STRICT for s in world.cluster.plan.servers for p in (HTTP, TCP)}
    result = world("-n", "a,b", "-o", "json")
    report = json.loads(result.stdout)

    assert result.exit_code == 0, result.output
    assert {check["status"] for check in report["checks"]} == {"PASS"}
    assert len(report["checks"]) == len(world.cluster.plan.cases)
    assert world.cluster.objects == {}


def test_plaintext_that_gets_through_strict_exits_with_1(world):
    from msgspec.structs import replace

    world.mesh = replace(world.mesh, peer_authentications=(strict("b"),))
    result = world("-n", "a,b", "-o", "json")
    codes = {finding["code"] for finding in json.loads(result.stdout)["findings"]}

    assert result.exit_code == 1
    assert "MT501" in codes


def test_the_fingerprint_alone_deploys_one_client_and_no_server(world):
    world.mesh = mesh("a", "b", pods=[pod("web")])
    seen = []
    world.cluster.faults["after_create"] = seen.append
    result = world("-n", "a", "--fingerprint-only", "-o", "json")

    assert [obj["metadata"]["name"].rpartition("-")[2] for obj in seen if obj["kind"] == "Pod"] == ["naked"]
    assert result.exit_code == 1  # the fake shows a mesh certificate on a pod that has no sidecar


def test_a_dry_run_prints_manifests_and_creates_nothing(world):
    result = world("-n", "a", "--dry-run", "--offers", "all")
    kinds = [obj["kind"] for obj in yaml.safe_load_all(result.stdout)]

    assert result.exit_code == 0
    assert kinds.count("Pod") == 4
    assert world.cluster.log == []


def test_a_namespace_that_does_not_exist_is_an_error_of_one_line(world):
    result = world("-n", "nowhere")

    assert result.exit_code == 2
    assert "namespace nowhere does not exist" in result.stderr
    assert world.cluster.log == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_midway_leaves_nothing_and_still_writes_the_report(world, tmp_path, number):
    seen = []

    def after(obj):
        seen.append(obj["kind"])
        if seen.count("Pod") == 4:
            os.kill(os.getpid(), number)

    world.cluster.faults["after_create"] = after
    path = tmp_path / "r.xml"
    result = world("-n", "a", "--report", f"junit={path}")

    assert result.exit_code == 130
    assert world.cluster.objects == {}
    assert "interrupted" in path.read_text()


def test_a_deadline_ends_it_with_124_and_leaves_nothing(world):
    world.cluster.faults["never_ready"] = True
    result = world("-n", "a", "--timeout", "300ms")

    assert result.exit_code == 124
    assert world.cluster.objects == {}


def test_a_namespace_where_a_service_would_take_the_probe_pods_is_skipped(world):
    from msgspec.structs import replace

    broad = convert(
        {
            "metadata": {"name": "all", "namespace": "a"},
            "spec": {"selector": {"app.kubernetes.io/managed-by": "meshtls"}},
        },
        Service,
    )
    world.mesh = replace(world.mesh, services=(broad,))
    result = world("-n", "a")

    assert result.exit_code == 3
    assert "Service/a/all would send its traffic to probe pods" in result.output
    assert world.cluster.log == []


@pytest.mark.parametrize("arguments", [
    ("--offers", "wishes"), ("-A",), ("--fingerprint-only", "--no-fingerprint"), ("--run-as-user", "1337"), ("--run-as-user", "0"),
    ("--toleration", ":x"), ("--node-selector", "a"), ("--connect-timeout", "5"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_asked(world, arguments):
    result = world(*arguments)

    assert result.exit_code == 2
    assert world.cluster.log == []


def test_a_second_run_beside_it_has_names_of_its_own(world):
    names = [
        yaml.safe_load(world("-n", "a", "--dry-run").stdout.split("\n---\n")[0])["metadata"]["name"] for _ in range(2)
    ]

    assert names[0] != names[1]

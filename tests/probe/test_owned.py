"""What runs leave is found by its marks, and nothing else is touched."""

import datetime
import json
import threading
from typing import ClassVar

import pytest
from click.testing import CliRunner
from world import Cluster

from meshtls.cli.cleanup import cleanup
from meshtls.cluster import client as client_module
from meshtls.cluster import owned
from meshtls.cluster.owned import Owned, Run, stamp
from meshtls.errors import ClusterError, Forbidden, NotFound

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
PAST, FUTURE = NOW - datetime.timedelta(hours=1), NOW + datetime.timedelta(days=36500)


def config(name, namespace="a", **metadata):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


@pytest.fixture
def cluster():
    made = Cluster()
    for obj in (
        stamp(config("old"), Run("r1", "probe", PAST)),
        stamp(config("new", "b"), Run("r2", "probe", FUTURE)),
        config("theirs"),
        config("journal", labels=owned.labels("migrate", "r3")),
    ):
        made.objects["ConfigMap", obj["metadata"]["namespace"], obj["metadata"]["name"]] = obj
    made.namespace = "a"
    made.get = lambda kind, name, namespace=None: {"metadata": {"name": name}}
    made.__class__.__enter__ = lambda self: self
    made.__class__.__exit__ = lambda self, *_: None
    return made


@pytest.fixture
def run(cluster, monkeypatch):
    monkeypatch.setattr(client_module.Client, "connect", lambda *args, **named: cluster)

    def invoke(*arguments):
        return CliRunner().invoke(cleanup, arguments)

    return invoke


def test_stamping_keeps_what_is_there():
    obj = stamp(config("x", labels={"a": "b"}, annotations={"c": "d"}), Run("r", "probe", NOW))

    assert obj["metadata"]["labels"] == {
        "a": "b",
        "app.kubernetes.io/managed-by": "meshtls",
        "meshtls.dev/part": "probe",
        "meshtls.dev/run": "r",
    }
    assert obj["metadata"]["annotations"] == {"c": "d", "meshtls.dev/expires": "2026-06-01T00:00:00Z"}


def test_only_what_has_our_marks_and_an_expiry_is_found(cluster):
    found = owned.find(cluster, [None], NOW)

    assert [(item.name, item.run, item.expired) for item in found] == [("old", "r1", True), ("new", "r2", False)]


@pytest.mark.parametrize("expires", ["", "never", "2026-05-31T00:00:00"])
def test_an_expiry_that_cannot_be_read_counts_as_over_and_a_missing_one_is_never_ours_to_remove(cluster, expires):
    cluster.objects["ConfigMap", "a", "old"]["metadata"]["annotations"]["meshtls.dev/expires"] = expires

    assert [item.expired for item in owned.find(cluster, ["a"], NOW)] == ([True] if expires else [])


def test_cleanup_removes_everything_of_ours_and_nothing_else(run, cluster):
    result = run("-A")

    assert result.exit_code == 0
    assert sorted(name for _, _, name in cluster.objects) == ["journal", "theirs"]
    assert "removed: ConfigMap/a/old (run r1" in result.output


@pytest.mark.parametrize("arguments, left", [
    (("-n", "a"), ["journal", "new", "theirs"]),
    ((), ["journal", "new", "theirs"]),
    (("-A", "--expired-only"), ["journal", "new", "theirs"]),
    (("-A", "--run", "r2"), ["journal", "old", "theirs"]),
    (("-A", "--dry-run"), ["journal", "new", "old", "theirs"]),
])  # fmt: skip
def test_cleanup_can_be_narrowed(run, cluster, arguments, left):
    assert run(*arguments).exit_code == 0
    assert sorted(name for _, _, name in cluster.objects) == left


def test_what_cannot_be_removed_is_told_and_the_exit_code_says_so(run, cluster):
    def refuse(*key):
        raise Forbidden("no", status=403)

    cluster.faults["on_delete"] = refuse
    result = run("-n", "a", "-o", "json")

    assert result.exit_code == 3
    assert json.loads(result.output)["items"] == [{"object": "ConfigMap/a/old", "run": "r1", "part": "probe",
                                                   "expires": "2026-05-31T23:00:00Z", "result": "not removed", "reason": "no"}]  # fmt: skip


def test_an_empty_cluster_is_said_to_be_empty(run, cluster):
    cluster.objects.clear()

    assert run("-A").output == "Nothing of ours is left in the cluster.\n"


def test_what_another_thread_is_just_creating_is_removed_too():
    asked, served = threading.Event(), threading.Event()

    class Slow:
        there: ClassVar[list[str]] = []

        def create(self, obj):
            asked.set()
            assert served.wait(10)
            self.there.append(obj["metadata"]["name"])
            return obj

        def delete(self, kind, name, namespace, uid=None, grace_s=None):
            if name not in self.there:
                raise NotFound("gone")
            self.there.remove(name)

        def list(self, kind, namespace, labels=""):
            return []

    client = Slow()
    with Owned(client, Run("r1", "probe", datetime.datetime.now(datetime.UTC))) as owned:
        thread = threading.Thread(target=owned.create, args=({"kind": "Pod", "metadata": {"name": "late", "namespace": "a"}},))
        thread.start()
        assert asked.wait(10)
        threading.Timer(0.05, served.set).start()
    thread.join()

    assert client.there == [] and owned.left == []
    with pytest.raises(ClusterError, match="the run is over"):
        owned.create({"kind": "Pod", "metadata": {"name": "later", "namespace": "a"}})

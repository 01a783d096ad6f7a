"""The store's five laws."""
import pytest

from meshtls.lab.api.store import Event, Exists, Gone, Missing, Stale, Store


def config(name: str = "a", **more: object) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}, **more}


def test_every_write_takes_the_next_version_and_a_removal_too() -> None:
    store, told = Store(), []
    store.subscribe(told.append)
    store.create("configmaps", config())
    store.mutate("configmaps", "n", "a", lambda obj: obj.update(data={"k": "v"}))
    store.delete("configmaps", "n", "a")
    assert [(event.type, event.version) for event in told] == [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 3)]
    assert told[1].old["metadata"]["resourceVersion"] == "1"


def test_a_write_that_changes_nothing_is_no_write() -> None:
    store = Store()
    made = store.create("configmaps", config(data={"k": "v"}))
    assert store.mutate("configmaps", "n", "a", lambda obj: obj["data"].update(k="v")) is made
    assert store.version == 1


def test_a_stored_object_is_not_the_callers() -> None:
    store, mine = Store(), config(data={"k": "v"})
    store.create("configmaps", mine)
    mine["data"]["k"] = "other"
    assert store.get("configmaps", "n", "a")["data"] == {"k": "v"}


def test_what_a_subscriber_writes_is_told_after_the_event_at_hand() -> None:
    store, told = Store(), []

    def react(event: Event) -> None:
        if event.object["metadata"]["name"] == "a" and event.type == "ADDED":
            store.create("configmaps", config("b"))
    store.subscribe(react)
    store.subscribe(lambda event: told.append(event.object["metadata"]["name"]))
    store.create("configmaps", config("a"))
    assert told == ["a", "b"]


def test_finalizers_hold_an_object_until_the_last_one_goes() -> None:
    store = Store()
    store.create("configmaps", {"metadata": {"name": "a", "namespace": "n", "finalizers": ["x/y"]}})
    store.delete("configmaps", "n", "a")
    assert store.get("configmaps", "n", "a")["metadata"]["deletionTimestamp"]
    store.mutate("configmaps", "n", "a", lambda obj: obj["metadata"].pop("finalizers"))
    assert store.get("configmaps", "n", "a") is None


def test_a_running_pod_waits_for_its_node_and_an_unscheduled_one_does_not() -> None:
    store = Store()
    for name, spec in (("run", {"nodeName": "one"}), ("new", {})):
        store.create("pods", {"metadata": {"name": name, "namespace": "n"}, "spec": spec})
        store.delete("pods", "n", name)
    assert [pod["metadata"]["name"] for pod in store.list("pods")] == ["run"]
    assert store.get("pods", "n", "run")["metadata"]["deletionGracePeriodSeconds"] == 30
    store.remove("pods", "n", "run")
    assert store.list("pods") == []


def test_generation_counts_what_is_wanted_and_not_status() -> None:
    store = Store()
    store.create("deployments.apps", {"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": 1}})
    store.mutate("deployments.apps", "n", "d", lambda obj: obj.update(status={"replicas": 1}))
    store.mutate("deployments.apps", "n", "d", lambda obj: obj["spec"].update(replicas=2))
    assert store.get("deployments.apps", "n", "d")["metadata"]["generation"] == 2


def test_wrong_writes_are_named() -> None:
    store = Store()
    made = store.create("configmaps", config())
    store.mutate("configmaps", "n", "a", lambda obj: obj.update(data={}))
    with pytest.raises(Exists):
        store.create("configmaps", config())
    with pytest.raises(Stale):
        store.update("configmaps", {**made, "data": {"x": "y"}})
    with pytest.raises(Missing):
        store.update("configmaps", config("b"))


def test_history_reaches_back_only_so_far() -> None:
    store = Store(history=2)
    for name in "abc":
        store.create("configmaps", config(name))
    assert [event.object["metadata"]["name"] for event in store.since("configmaps", 1)] == ["b", "c"]
    with pytest.raises(Gone):
        store.since("configmaps", 0)


def test_submit_without_an_api_is_create() -> None:
    store, told = Store(), []
    store.submit("configmaps", config(), "system:me", told.append)
    store.submit("configmaps", config(), "system:me", told.append)
    assert told[0]["metadata"]["uid"] and isinstance(told[1], Exists)

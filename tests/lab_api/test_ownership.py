"""Patches and field ownership, as data: what is merged, who owns what, what conflicts."""
import pytest

from meshtls.lab.api import apply, patch, schema, status

DEPLOYMENT = schema.model("V1Deployment")


def containers(*items: dict) -> dict:
    return {"spec": {"template": {"spec": {"containers": list(items)}}}}


def names(obj: dict) -> list[str]:
    return [one["name"] for one in obj["spec"]["template"]["spec"]["containers"]]


STRATEGIC = [
    ("an item is found by its merge key", {"name": "b", "image": "2"}, None, [("a", "1"), ("b", "2")]),
    ("a new item stands before those that are not named", {"name": "c", "image": "3"}, None,
     [("c", "3"), ("a", "1"), ("b", "1")]),
    ("an item is deleted by directive", {"name": "a", "$patch": "delete"}, None, [("b", "1")]),
    ("the patch's order holds", {"name": "c", "image": "3"}, ["c", "a", "b"], [("c", "3"), ("a", "1"), ("b", "1")])]


@pytest.mark.parametrize(("item", "order", "want"), [case[1:] for case in STRATEGIC],
                         ids=[case[0] for case in STRATEGIC])
def test_strategic_merge(item: dict, order: list[str] | None, want: list[tuple[str, str]]) -> None:
    change = containers(item)
    if order:
        change["spec"]["template"]["spec"]["$setElementOrder/containers"] = [{"name": name} for name in order]
    current = containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    made = patch.strategic(DEPLOYMENT, current, change)
    assert [(one["name"], one["image"]) for one in made["spec"]["template"]["spec"]["containers"]] == want
    assert names(current) == ["a", "b"], "the input stays as it was"


def test_retain_keys_clears_the_other_members_of_a_union() -> None:
    current = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    made = patch.strategic(DEPLOYMENT, current, {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
    assert made["spec"]["strategy"] == {"type": "Recreate"}


def applied(live: dict | None, config: dict, manager: str, force: bool = False) -> dict:
    return apply.applied(DEPLOYMENT, live, config, manager, "apps/v1", force, "2026-01-01T00:00:00Z")


def test_two_appliers_share_a_list_by_its_keys() -> None:
    one = applied(None, containers({"name": "a", "image": "1"}), "alice")
    both = applied(one, containers({"name": "b", "image": "1"}), "bob")
    assert names(both) == ["a", "b"]
    assert {entry["manager"]: list(entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"])
            for entry in both["metadata"]["managedFields"]} == {"alice": ['k:{"name":"a"}'], "bob": ['k:{"name":"b"}']}


def test_what_an_applier_leaves_out_goes_unless_somebody_else_owns_it() -> None:
    live = applied(None, {"spec": {"replicas": 1, "paused": True}}, "alice")
    live = applied(live, {"spec": {"replicas": 1}}, "bob")
    left = applied(live, {"spec": {"minReadySeconds": 3}}, "alice")
    assert left["spec"] == {"replicas": 1, "minReadySeconds": 3}


def test_a_conflict_names_every_field_and_its_owner() -> None:
    live = applied(None, {"spec": {"replicas": 1, "paused": True}}, "alice")
    with pytest.raises(status.ApiError) as refused:
        applied(live, {"spec": {"replicas": 2, "paused": False}}, "bob")
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "alice":\n- .spec.paused\n- .spec.replicas')
    forced = applied(live, {"spec": {"replicas": 2}}, "bob", force=True)
    assert forced["spec"] == {"replicas": 2, "paused": True}


def test_an_update_takes_the_fields_that_it_changes() -> None:
    live = applied(None, {"spec": {"replicas": 1, "paused": True}}, "alice")
    new = {**live, "spec": {"replicas": 5, "paused": True}}
    apply.updated(DEPLOYMENT, live, new, "kubectl-edit", "apps/v1", "", "2026-01-02T00:00:00Z")
    assert {entry["manager"]: entry["fieldsV1"]["f:spec"] for entry in new["metadata"]["managedFields"]} == {
        "alice": {"f:paused": {}}, "kubectl-edit": {"f:replicas": {}}}


def test_fields_survive_encoding() -> None:
    paths = set(apply.owned(DEPLOYMENT, {"metadata": {"labels": {"a": "b"}},
                                          **containers({"name": "a", "ports": [{"containerPort": 80}]})}))
    assert set(apply.decode(apply.encode(paths))) == paths

"""What a migration would change, and what it says that it will not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshtls import sources
from meshtls.errors import InputError
from meshtls.migrate.plan import Arrivals, plan
from meshtls.model.mesh import Mesh

HEAD = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication"}


def pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080}]}, {"name": "istio-proxy", "image": "p"}]},
        "status": {"phase": "Running"},
    }  # fmt: skip


def policy(name: str, spec: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    return {**HEAD, "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"}, "spec": spec}


def of(app: str, mode: str, **ports: str) -> dict[str, Any]:
    more = {"portLevelMtls": {port[1:]: {"mode": m} for port, m in ports.items()}} if ports else {}
    return {"selector": {"matchLabels": {"app": app}}, "mtls": {"mode": mode}, **more}


@pytest.fixture
def mesh(tmp_path: Path):
    def make(*objects: dict[str, Any]) -> Mesh:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        path = tmp_path / "mesh.yaml"
        path.write_text(yaml.safe_dump_all([space, pod("cart"), pod("web"), *objects]))
        return sources.load([str(path)])

    return make


def ids(found: Any) -> list[tuple[str, str, str, str]]:
    return [(s.id, s.policy, s.found, s.mode) for s in found.stages]


def test_what_is_absent_is_created_and_the_canary_is_temporary(mesh) -> None:
    found = plan(mesh(), "shop")
    assert ids(found) == [("canary", "meshtls-canary-cart", "", "STRICT"), ("namespace", "default", "", "STRICT")]
    assert [stage.temporary for stage in found.stages] == [True, False]
    assert all(stage.create for stage in found.stages)


def test_the_policy_that_wins_is_patched_whatever_its_name(mesh) -> None:
    found = plan(mesh(policy("ours", {"mtls": {"mode": "PERMISSIVE"}})), "shop")
    assert ids(found)[-1] == ("namespace", "ours", "PERMISSIVE", "STRICT")
    assert not found.stages[-1].create
    assert found.stages[-1].uid == "uid-ours"


def test_disable_goes_by_way_of_permissive(mesh) -> None:
    found = plan(mesh(policy("default", {"mtls": {"mode": "DISABLE"}})), "shop")
    assert ids(found) == [
        ("permissive", "default", "DISABLE", "PERMISSIVE"), ("canary", "meshtls-canary-cart", "", "STRICT"),
        ("namespace", "default", "PERMISSIVE", "STRICT"),
    ]  # fmt: skip


def test_disable_of_the_mesh_goes_by_way_of_permissive_too(mesh) -> None:
    found = plan(mesh(policy("default", {"mtls": {"mode": "DISABLE"}}, "istio-system")), "shop")
    assert [(s.id, s.create, s.mode) for s in found.stages] == [
        ("permissive", True, "PERMISSIVE"), ("canary", True, "STRICT"), ("namespace", False, "STRICT")]  # fmt: skip


def test_a_workload_that_is_disable_by_its_own_policy_is_no_canary(mesh) -> None:
    objects = mesh(policy("for-cart", of("cart", "DISABLE")))
    assert plan(objects, "shop").canary == "Pod/shop/web"
    with pytest.raises(InputError, match="is DISABLE by for-cart: it would have to be PERMISSIVE first"):
        plan(objects, "shop", canary="cart")


def test_a_workload_without_a_policy_of_its_own_is_rather_the_canary(mesh) -> None:
    assert plan(mesh(policy("for-cart", of("cart", "PERMISSIVE"))), "shop").canary == "Pod/shop/web"


def test_what_policies_of_workloads_keep_from_being_strict_is_said(mesh) -> None:
    found = plan(mesh(policy("for-cart", of("cart", "PERMISSIVE")), policy("for-web", of("web", "STRICT", p8080="DISABLE", p9001="STRICT", p80="PERMISSIVE"))), "shop")
    assert [note for note in found.notes if "stays" in note] == [
        "Pod/shop/cart stays PERMISSIVE: PeerAuthentication for-cart says so",
        "Pod/shop/web stays DISABLE on port 8080: PeerAuthentication for-web says so",
    ]


def test_it_is_said_of_a_namespace_that_is_strict_too(mesh) -> None:
    found = plan(mesh(policy("default", {"mtls": {"mode": "STRICT"}}), policy("for-cart", of("cart", "PERMISSIVE"))), "shop")
    assert found.stages == ()
    assert len(found.notes) == 2


def test_whoever_goes_on_past_plaintext_tries_where_it_arrives(mesh) -> None:
    arrivals = {"Pod/shop/web": Arrivals(mtls=1, plaintext=5), "Pod/shop/cart": Arrivals(mtls=9)}
    assert plan(mesh(), "shop", arrivals=arrivals, past_plaintext=True).canary == "Pod/shop/web"
    assert plan(mesh(), "shop", arrivals=arrivals).canary == "Pod/shop/cart"


@pytest.mark.parametrize("wanted", ["nobody", "Deployment/cart"])
def test_a_canary_that_is_none_is_an_error_of_usage(mesh, wanted: str) -> None:
    with pytest.raises(InputError):
        plan(mesh(), "shop", canary=wanted)


def test_the_root_namespace_is_not_migrated_by_itself(mesh) -> None:
    with pytest.raises(InputError, match="root namespace"):
        plan(mesh(), "istio-system")

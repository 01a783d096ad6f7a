"""What there is to keep is read from the mesh, exceptions and all."""

import pytest
import yaml

from meshtls.guard.achieved import Kept, achieved
from meshtls.sources import load
from tests.guard import cases


def of(tmp_path, *objects, namespaces=None):
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    return achieved(load([str(file)]), namespaces)


def space(name, **labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.fixture(scope="module")
def kept() -> dict[str, Kept]:
    return {each.namespace: each for each in cases.kept()}


def test_a_namespace_is_kept_by_its_own_policy_by_the_meshs_or_in_part(kept):
    assert {name: (each.scope, each.inherits, dict(each.keepers)) for name, each in kept.items()} == {
        "shop": ("namespace", False, {"default": {}}),
        "amb": ("namespace", False, {"default": {}}),
        "inherits": ("namespace", True, {}),
        "part": ("workloads", False, {"web": {"app": "web"}}),
        "istio-system": ("mesh", False, {"default": {}}),
    }


def test_every_exception_that_stands_today_is_named_and_nothing_else(kept):
    plain = {name: {one.strip("^$").replace("\\", "") for one in each.excepted} for name, each in kept.items()}

    assert plain["shop"] == {
        "port-mode 3306 PERMISSIVE (PeerAuthentication/db)",
        "workload-mode PERMISSIVE (PeerAuthentication/old)",
        "injection-off (Deployment/legacy|ReplicaSet/legacy-[a-z0-9]+)",
        "no-sidecar (Deployment/legacy|ReplicaSet/legacy-[a-z0-9]+)",
        "excluded-port 9090 (Deployment/metered|ReplicaSet/metered-[a-z0-9]+)",
        "injection-off (CronJob/nightly|Job/nightly-[0-9]+)",
        "no-sidecar (CronJob/nightly|Job/nightly-[0-9]+)",
        "client-tls DISABLE (DestinationRule/shop/plain legacy.shop.svc.cluster.local)",
    }
    assert not plain["amb"] and not plain["part"] and not plain["inherits"]


def test_of_a_namespace_that_is_strict_in_part_its_strict_workloads_and_ports_are_kept(kept):
    part = kept["part"]

    assert part.strict == ("web",) and part.ports == ("web 8080",)
    assert part.workloads == ({"app": "web"},) and part.hosts == ("web.part.svc.cluster.local",) and not part.suffixes


def test_data_planes_and_the_labels_that_choose_the_namespace_are_known(kept):
    assert kept["shop"].planes == ("sidecar",) and kept["amb"].planes == ("ambient",)
    assert kept["shop"].labels == ("istio-injection", "istio.io/rev", "istio.io/dataplane-mode", "mesh")


@pytest.mark.parametrize(("policies", "why"), [
    ([], "has no namespace-wide PeerAuthentication"),
    ([cases.policy("PERMISSIVE", name="default")], "is PERMISSIVE by PeerAuthentication/shop/default"),
    ([cases.policy("PERMISSIVE", name="default"), cases.policy("STRICT", name="default", namespace="istio-system")], "is PERMISSIVE"),
])  # fmt: skip
def test_there_is_nothing_to_keep_where_nothing_was_achieved(tmp_path, policies, why):
    kept, nothing = of(tmp_path, space("shop", **{"istio-injection": "enabled"}), *policies, namespaces=["shop"])

    assert not kept and why in nothing["shop"]


def test_the_oldest_of_two_policies_is_the_one_that_counts(tmp_path):
    first = cases.merged(cases.policy("PERMISSIVE", name="z"), {"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}})
    second = cases.merged(cases.policy("STRICT", name="a"), {"metadata": {"creationTimestamp": "2025-01-01T00:00:00Z"}})

    assert not of(tmp_path, space("shop"), first, second)[0]


def test_what_only_a_strict_mesh_reaches_and_nothing_of_the_mesh_lives_in_is_not_kept(tmp_path):
    kept, nothing = of(tmp_path, space("bare"), cases.pod(bare=True, namespace="bare"), cases.policy("STRICT", name="d", namespace="istio-system"), namespaces=["bare"])

    assert not kept and nothing["bare"] == "namespace bare has nothing in the mesh, and no policy of its own"


def test_ports_that_the_injector_leaves_out_everywhere_are_nobodys_exception(tmp_path):
    values = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
              "data": {"values": '{"global": {"proxy": {"excludeInboundPorts": "9999"}}}'}}  # fmt: skip
    (kept,), _ = of(tmp_path, space("shop", **{"istio-injection": "enabled"}), values, cases.policy("STRICT", name="default"),
                    cases.deployment(None, {cases.EXCLUDE: "9999"}))  # fmt: skip

    assert "9999" in kept.uncaptured and not kept.excepted


def test_a_pod_that_is_to_be_injected_is_no_exception_because_it_was_not_restarted_yet(tmp_path):
    running = cases.merged(cases.pod(bare=True, owner=("StatefulSet", "db")), {"status": {"phase": "Running", "podIP": "10.0.0.1"}})
    own = cases.deployment(name="db", kind="StatefulSet")
    (kept,), _ = of(tmp_path, space("shop", **{"istio-injection": "enabled"}), cases.policy("STRICT", name="default"), running, own)

    assert not kept.excepted

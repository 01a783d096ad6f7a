"""The dry run of STRICT: where it must not be tried, and what its counters say; a proxy that was not seen counting is unknown."""

from typing import Any

import msgspec
import pytest

from meshtls.model.check import Check, Status
from meshtls.model.config import MeshConfig
from meshtls.model.mesh import Mesh
from meshtls.model.objects import AuthorizationPolicy, Pod
from meshtls.observe import shadow
from meshtls.observe.counted import Proxied, proxied
from meshtls.observe.shadow import Tally, altered, policy, refusals

WEB = Proxied(ref="Deployment/shop/web", proxies=("10.0.0.1", "10.0.0.2"), made="", began="")


def pod(name: str, where: str = "shop", *, ambient: bool = False, image: str = "", alone: bool = False, ip: str = "10.0.0.1") -> Pod:
    names = ["istio-proxy"] if alone else ["app"] if ambient else ["app", "istio-proxy"]
    return msgspec.convert({
        "metadata": {"name": name, "namespace": where, "labels": {"app": name},
                     "annotations": {"ambient.istio.io/redirection": "enabled"} if ambient else {}},
        "spec": {"containers": [{"name": one, "image": image or "x"} for one in names], "nodeName": "n1"},
        "status": {"phase": "Running", "podIP": ip},
    }, Pod)


def other(action: str = "DENY", where: str = "shop", dry: bool = True, own: bool = False) -> AuthorizationPolicy:
    return msgspec.convert({
        "metadata": {"name": "other", "namespace": where, "annotations": {"istio.io/dry-run": "true"} if dry else {},
                     "labels": {"app.kubernetes.io/managed-by": "meshtls"} if own else {}},
        "spec": {"action": action},
    }, AuthorizationPolicy)


def ztunnel(image: str) -> Pod:
    return pod("ztunnel", "istio-system", image=image)


@pytest.mark.parametrize(("mesh", "words"), [
    (Mesh(pods=(pod("web"),)), ""),
    (Mesh(pods=(pod("web"),), configs={"default": MeshConfig(root_namespace="shop")}), "root namespace"),
    (Mesh(pods=(pod("web", ambient=True), ztunnel("gcr.io/x/ztunnel:1.28.3"))), "older than 1.29"),
    (Mesh(pods=(pod("web", ambient=True), ztunnel("gcr.io/x/ztunnel@sha256:1234"))), "does not say"),
    (Mesh(pods=(pod("web", ambient=True), ztunnel("gcr.io/x/ztunnel:1.29.0-distroless"))), ""),
    (Mesh(pods=(pod("web", ambient=True),)), "no ztunnel is seen"),
    (Mesh(pods=(pod("web"),), absent={"Pod": "not allowed"}), "Pods could not be read"),
    (Mesh(pods=(pod("web"),), absent={"AuthorizationPolicy": "not allowed"}), "AuthorizationPolicys could not be read"),
    (Mesh(pods=(pod("web"),), absent={"ConfigMap": "not allowed"}), "ConfigMaps could not be read"),
    (Mesh(pods=(pod("web"), pod("amb", "other", ambient=True), ztunnel("gcr.io/x/ztunnel:1.20.0"))), ""),
    (Mesh(pods=(pod("web"),), authorization_policies=(other(),)), "the same counters"),
    (Mesh(pods=(pod("web"),), authorization_policies=(other(where="istio-system"),)), "the same counters"),
    (Mesh(pods=(pod("web"),), authorization_policies=(other(where="elsewhere"), other("ALLOW"), other(dry=False))), ""),
])  # fmt: skip
def test_it_is_not_tried_where_it_could_refuse_in_earnest_or_count_something_else(mesh: Mesh, words: str) -> None:
    found = refusals(mesh, "shop", {})

    assert (words in found[0]) if words else not found


def test_ambient_pods_that_it_does_not_select_are_no_reason() -> None:
    mesh = Mesh(pods=(pod("web"), pod("amb", ambient=True), ztunnel("z:1.20.0")))

    assert refusals(mesh, "shop", {"app": "amb"}) and not refusals(mesh, "shop", {"app": "web"})


def test_a_policy_that_is_no_longer_a_dry_run_is_known() -> None:
    def changed(**more: Any) -> str:
        made = policy("p", "shop", {})
        return altered({**made, **more})

    assert altered(policy("p", "shop", {"app": "web"})) == ""
    assert "in earnest" in changed(metadata={"name": "p"})
    assert "in earnest" in changed(metadata={"annotations": {"istio.io/dry-run": "yes"}})
    assert "changes its rules" in changed(spec={"action": "DENY", "rules": [{}]})


def counter(address: str, port: int | str, result: str, value: float) -> tuple[dict[str, str], float]:
    own = {"tcp_prefix": "rbac.istio_dry_run_deny_"} if port == 0 else {"http_conn_manager_prefix": f"inbound_0.0.0.0_{port}" if isinstance(port, int) else port}
    return {"instance": f"{address}:15020", "authz_dry_run_result": result, **own}, value


def check(*readings: list[tuple[dict[str, str], float]], before: list[tuple[dict[str, str], float]] | None = None) -> Check:
    tally = Tally()
    tally.take(before or [], first=True)
    for reading in readings:
        tally.take(reading)
    return shadow.checks(tally, [WEB])[0]


def both(port: int, allowed: float, denied: float) -> list[tuple[dict[str, str], float]]:
    return [counter(a, port, r, v) for a in WEB.proxies for r, v in (("allowed", allowed), ("denied", denied))]


def test_principals_only_pass_nothing_proves_nothing_and_no_counter_is_unknown() -> None:
    assert check(both(8080, 5, 0)).status is Status.PASS
    assert check(both(8080, 0, 0)).status is Status.SKIP
    assert check([counter("10.0.0.1", 8080, "allowed", 5)]).status is Status.ERROR
    assert check().status is Status.ERROR


def test_what_would_be_refused_is_said_by_port() -> None:
    found = check([*both(8080, 5, 2), counter("10.0.0.1", 0, "denied", 1), counter("10.0.0.1", "InboundPassthroughCluster", "denied", 3)])

    assert [f.message.partition(" takes on ")[2] for f in found.findings] == [
        "a port that no Service names: 3 requests without a principal of the mesh",
        "its TCP ports (the counter does not say which): 1 connection without a principal of the mesh",
        "port 8080: 4 requests without a principal of the mesh",
    ]


def test_what_was_counted_before_is_not_counted_and_a_proxy_that_began_again_is() -> None:
    assert check(both(8080, 9, 7), before=both(8080, 9, 7)).status is Status.SKIP
    found = check(both(8080, 9, 8), both(8080, 0, 2), before=both(8080, 9, 7))
    assert ": 6 requests" in found.findings[0].message


def test_a_proxy_that_is_no_longer_seen_at_the_end_is_unknown() -> None:
    assert check(both(8080, 5, 0), both(8080, 6, 0)[:2]).status is Status.ERROR
    assert check(both(8080, 5, 1), both(8080, 6, 1)[:2]).status is Status.FAIL


def test_counters_of_calls_that_go_out_are_not_its_own() -> None:
    assert check([*both(8080, 5, 0), counter("10.0.0.1", "outbound_0.0.0.0_80", "denied", 9)]).status is Status.PASS


def test_gateways_and_ambient_workloads_have_no_counters_to_wait_for() -> None:
    mesh = Mesh(pods=(pod("web"), pod("gate", alone=True, ip="10.0.0.3"), pod("amb", ambient=True, ip="10.0.0.4")))

    assert [w.ref for w in shadow.subjects(proxied(mesh, ["shop"]), mesh, "shop", {})] == ["Pod/shop/web"]

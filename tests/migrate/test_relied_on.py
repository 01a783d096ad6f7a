"""What relies on the mode as it is: clients that only STRICT takes, and plaintext connections that a ztunnel holds open."""

from typing import Any

import pytest
import yaml

from meshtls.migrate import baseline
from meshtls.migrate.baseline import Facts, Waiver
from meshtls.migrate.exceptions import exception, manifest
from meshtls.migrate.gate import Evidence, Verdict, checks, verdict
from meshtls.migrate.journal import Journal, begin
from meshtls.migrate.plan import plan
from meshtls.migrate.raw import Raw, lost
from meshtls.model.check import Status
from meshtls.policy.authn import Authn
from tests.migrate.conftest import PASSED
from tests.migrate.test_plan import mesh, of, pod, policy

__all__ = ["mesh"]
SCRAPER = Raw(client="Deployment/monitoring/prometheus (pod p-1)", ref="Deployment/monitoring/prometheus", server="Pod/shop/cart", port=9090,
              count=3, last="2026-01-01T00:00:00Z")  # fmt: skip
WIDE = policy("default", {"mtls": {"mode": "STRICT"}})


def done(found: Any) -> Journal:
    return begin(plan(found, "shop"), run="r", now="t", who="ann", soak_s=1, forced=False, accepted=())


def test_a_client_that_only_strict_takes_is_named_with_the_policy_that_keeps_its_port(mesh) -> None:
    found = mesh(WIDE)
    check = lost(found, done(found), [SCRAPER])

    assert check.status is Status.PASS, "a rollback is not held for it"
    (finding,) = check.findings
    assert "prometheus" in finding.message and "this rollback breaks it" in finding.message
    assert yaml.safe_load(finding.fix.partition("\n")[2]) == policy("cart-ports", {
        "selector": {"matchLabels": {"app": "cart"}}, "portLevelMtls": {"9090": {"mode": "STRICT"}}}) | {
        "metadata": {"name": "cart-ports", "namespace": "shop"}}  # fmt: skip


@pytest.mark.parametrize("policies", [
    [WIDE, policy("keeps", of("cart", "PERMISSIVE", p9090="STRICT"))],  # the port stays STRICT
    [WIDE, policy("opens", of("cart", "PERMISSIVE"))],  # and here it never was
    [],
])  # fmt: skip
def test_a_port_that_the_rollback_does_not_change_is_not_told_of(mesh, policies: list[dict[str, Any]]) -> None:
    found = mesh(*policies)
    assert lost(found, done(found), [SCRAPER]).findings == ()


def test_a_monitor_that_names_a_certificate_of_the_mesh_is_told_of(mesh) -> None:
    found = mesh(WIDE)
    assert [f.subject for f in lost(found, done(found), [], ["ServiceMonitor/monitoring/cart"]).findings] == ["ServiceMonitor/monitoring/cart"]


def test_an_exception_is_the_policy_that_is_there_with_the_port_added(mesh) -> None:
    found = mesh(policy("for-cart", of("cart", "PERMISSIVE", p9000="DISABLE")))
    cart = next(w for w in found.workloads if w.name == "cart")
    made = exception(found, Authn(found.peer_authentications, found.root), cart, {8080: "PERMISSIVE"})
    assert made["metadata"]["name"] == "for-cart"
    assert made["spec"]["portLevelMtls"] == {"8080": {"mode": "PERMISSIVE"}, "9000": {"mode": "DISABLE"}}
    assert made["spec"]["mtls"] == {"mode": "PERMISSIVE"}
    assert yaml.safe_load(manifest(made)) == made


def test_a_workload_without_labels_of_its_own_gets_no_exception(mesh) -> None:
    twin = pod("cart-2")
    twin["metadata"]["labels"] = {"app": "cart"}
    found = mesh(twin)
    cart = next(w for w in found.workloads if w.name == "cart")
    assert "no labels of its own" in exception(found, Authn((), found.root), cart, {8080: "PERMISSIVE"})


def ambient() -> dict[str, Any]:
    made = pod("amb")
    made["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    made["spec"]["containers"] = made["spec"]["containers"][:1]
    return made


@pytest.mark.parametrize(("facts", "waiver", "status"), [
    (Facts(opened=(("raw/billing", "shop/amb", 2),)), Waiver(), Status.FAIL),
    (Facts(opened=(("raw/billing", "shop/amb", 2),)), Waiver(accepted=("raw/billing",)), Status.PASS),
    (Facts(unopened="get pods/proxy: not allowed"), Waiver(), Status.SKIP),
    (Facts(), Waiver(), Status.PASS),
])  # fmt: skip
def test_plaintext_that_is_held_open_into_ambient_holds_the_run_unless_accepted(mesh, facts: Facts, waiver: Waiver, status: Status) -> None:
    found = mesh(ambient())
    (check,) = [c for c in baseline.checks(found, plan(found, "shop"), facts, waiver) if c.id == "baseline/open"]
    assert check.status is status
    assert status is not Status.FAIL or "raw/billing holds 2 plaintext connections to shop/amb open" in check.findings[0].message


def test_without_ambient_nothing_is_asked_about_open_connections(mesh) -> None:
    found = mesh()
    assert not [c for c in baseline.checks(found, plan(found, "shop"), Facts(), Waiver()) if c.id == "baseline/open"]


def test_a_connection_that_outlives_the_change_breaks_the_gate() -> None:
    evidence = Evidence(soaked_s=60, needed_s=60, proxies=1, probes=(PASSED,), outliving=("raw/billing to shop/amb",))
    assert verdict(evidence) == (Verdict.BROKEN, "will be refused once it connects again: raw/billing to shop/amb")
    assert "gate/canary/outliving" in [c.id for c in checks("canary", evidence) if c.status is Status.FAIL]

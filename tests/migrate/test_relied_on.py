"""What relies on the mode as it is: clients that only STRICT takes, and plaintext connections that a ztunnel holds open."""

from typing import Any

import pytest
import yaml

from meshtls.cli.before import kept_open
from meshtls.migrate import baseline
from meshtls.migrate.baseline import Facts, Waiver
from meshtls.migrate.exceptions import Doors, exception, manifest
from meshtls.migrate.gate import Evidence, Verdict, checks, verdict
from meshtls.migrate.journal import Journal, begin
from meshtls.migrate.plan import plan
from meshtls.migrate.raw import Raw, lost
from meshtls.model.check import Check, Finding, Severity, Status
from meshtls.policy.authn import Authn
from meshtls.policy.change import strict
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


@pytest.mark.parametrize(("policies", "port", "opened"), [
    ([policy("keeps", of("cart", "STRICT", p8080="PERMISSIVE"))], 8080, True),
    ([policy("keeps", of("cart", "STRICT", p8080="PERMISSIVE"))], 9000, False),
    ([policy("keeps", of("cart", "PERMISSIVE"))], 9000, True),
    ([], 8080, False),
])  # fmt: skip
def test_a_port_is_open_where_an_exception_keeps_it_so_under_strict(mesh, policies: list[dict[str, Any]], port: int, opened: bool) -> None:
    doors = Doors(strict(mesh(*policies), ["shop"]))
    assert doors.open("Pod/shop/cart", port) is opened
    assert doors.open("Pod/shop/nobody", port) is False


def test_what_arrives_at_a_port_that_stays_open_is_mentioned_and_holds_nothing() -> None:
    told = Finding(code="MT601", severity=Severity.ERROR, subject="Deployment/legacy/billing", message="billing sends plaintext")
    other = Finding(code="MT601", severity=Severity.ERROR, subject="Deployment/legacy/other", message="other sends plaintext")
    both, one = (Check(id="observe/x", title="x", status=Status.FAIL, findings=f) for f in ((told, other), (told,)))

    found = kept_open((both, one), {"billing sends plaintext"})
    assert [check.status for check in found] == [Status.FAIL, Status.PASS]
    assert [f.severity for f in found[0].findings] == [Severity.INFO, Severity.ERROR]
    assert found[1].findings[0].message == "billing sends plaintext; this port stays open to it"


def test_a_kind_that_could_not_be_read_holds_the_run(mesh) -> None:
    """Without it the prediction finds nobody, and no webhook locks anybody out: that is no answer."""
    found = mesh()
    facts = Facts(unread=("DestinationRule could not be read, and the answers leave it out: not allowed",))
    checks = baseline.checks(found, plan(found, "shop"), facts, Waiver())
    assert "baseline/read" in [check.id for check in baseline.holding(checks, Waiver())]
    assert "baseline/read" not in [check.id for check in baseline.holding(checks, Waiver(force=True))]

"""`meshtls guard check`: only what got weaker is a finding, and what could not be read is never a pass."""

import copy
import datetime
import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli.main import cli
from meshtls.guard.admission import admission
from meshtls.guard.exceptions import entries, with_granted
from meshtls.guard.regression import QUESTIONS, regression
from meshtls.model.check import Check, Status
from meshtls.sources import load
from meshtls.sources.dump import write
from tests.guard import cases, judges
from tests.guard.test_admission_policy import client
from tests.lone_api import standalone

TODAY = datetime.date(2030, 1, 1)
Objects = list[cases.Object]


HOOK: cases.Object = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "istio-sidecar-injector"},
    "webhooks": [{"name": "namespace.sidecar-injector.istio.io", "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
                  "objectSelector": {"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]}}],
}  # fmt: skip


def mesh(tmp_path: Path, objects: Objects, name: str = "mesh", **dumped):
    """The mesh of some objects; with `live` or `absent` as a dump of a cluster, which has an injector."""
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all([*objects, *([HOOK] if dumped else [])]))
    found = load([str(file)])
    return msgspec.structs.replace(found, **dumped) if dumped else found


def changed(kind: str, name: str, change: cases.Object, namespace: str = "shop") -> Objects:
    """The world with one object changed."""
    old = cases.existing(kind, name, namespace)
    return [cases.merged(o, change) if o == old else o for o in cases.world()]


def without(kind: str, name: str, namespace: str = "shop") -> Objects:
    old = cases.existing(kind, name, namespace)
    return [o for o in cases.world() if o != old]


def service(name: str = "cart", namespace: str = "shop") -> cases.Object:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}  # fmt: skip


def found(checks: list[Check]) -> set[tuple[str, str]]:
    return {(check.id, finding.subject) for check in checks for finding in check.findings}


def compared(tmp_path: Path, after: Objects, before: Objects | None = None) -> set[tuple[str, str]]:
    return found(regression(mesh(tmp_path, before or cases.world(), "before"), mesh(tmp_path, after, "after"), TODAY))


OFF = {"spec": {"template": {"metadata": {"labels": cases.OFF}}}}
CASES: dict[str, tuple[Objects, set[tuple[str, str]]]] = {
    "nothing": (cases.world(), set()),
    "a port of a workload": (changed("PeerAuthentication", "db", {"spec": {"portLevelMtls": {"3306": {"mode": "DISABLE"}}}}), set()),
    "an exception of a workload that runs": (
        [*cases.world(), cases.policy("STRICT", {"8080": "PERMISSIVE"}, {"app": "cart"})], {("MT911", "Deployment/shop/cart")}),
    "a mode that rose": (changed("PeerAuthentication", "default", {"spec": {"mtls": {"mode": "STRICT"}}}, "part"), set()),
    "a kept workload's policy that is gone": (without("PeerAuthentication", "web", "part"), {("MT911", "Deployment/part/web")}),
    "a template that leaves the mesh": (
        changed("Deployment", "cart", OFF), {("MT912", "Deployment/shop/cart"), ("MT913", "Service/part/web")}),
    "a workload that is gone": (without("Deployment", "cart"), set()),
    "a namespace that leaves the mesh": (
        changed("Namespace", "amb", {"metadata": {"labels": {"istio.io/dataplane-mode": None}}}), {("MT912", "Deployment/amb/seen")}),
    "the namespace's mode": (changed("PeerAuthentication", "default", {"spec": {"mtls": {"mode": "PERMISSIVE"}}}),
                             {("MT914", "Namespace/shop"), ("MT911", "Deployment/shop/cart"), ("MT911", "Deployment/shop/metered")}),
    "the namespace's policy, where the mesh is STRICT": (without("PeerAuthentication", "default"), set()),
    "the mesh's policy": (without("PeerAuthentication", "default", "istio-system"), {("MT914", "Namespace/istio-system")}),
    "a new workload outside the mesh": ([*cases.world(), cases.deployment(cases.OFF)], {("MT915", "Deployment/shop/new")}),
    "a new workload that is not STRICT": (
        [*cases.world(), cases.deployment(), cases.policy("PERMISSIVE", labels={"app": "new"})], {("MT915", "Deployment/shop/new")}),
    "a new workload like the others": ([*cases.world(), cases.deployment()], set()),
    "a new workload in a namespace that never was STRICT": ([*cases.world(), cases.deployment(namespace="free")], set()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_only_what_got_weaker_is_a_finding(tmp_path, case):
    after, wanted = CASES[case]

    assert compared(tmp_path, after) == wanted


@pytest.mark.parametrize("case", [case for case, (_, wanted) in CASES.items() if wanted])
def test_what_got_stronger_again_is_no_finding(tmp_path, case):
    assert compared(tmp_path, cases.world(), before=CASES[case][0]) == set()


def test_a_call_that_loses_its_mtls_is_told_once_for_all_its_clients(tmp_path):
    before = [*cases.world(), service(), cases.deployment(name="one"), cases.deployment(name="two", namespace="inherits")]
    after = [*before, cases.rule(cases.CART, cases.DISABLE, namespace="shop")]
    checks = regression(mesh(tmp_path, before, "before"), mesh(tmp_path, after, "after"), TODAY)
    (finding,) = next(c for c in checks if c.id == "MT913").findings

    assert found(checks) == {("MT913", "Service/shop/cart")}
    assert "Deployment/inherits/two" in finding.message and "sent mTLS to port 80 and now send plaintext" in finding.message
    assert finding.because[0].startswith("DestinationRule/shop/new spec.trafficPolicy.tls.mode") and finding.line


def test_a_template_is_compared_though_older_pods_still_run(tmp_path):
    running = cases.merged(cases.pod(owner=("Deployment", "cart"), name="cart-1"),
                           {"metadata": {"labels": {"app": "cart"}, "uid": "1"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})  # fmt: skip
    before = mesh(tmp_path, [*cases.world(), running], "before", live=True)
    after = mesh(tmp_path, [*changed("Deployment", "cart", OFF), running], "after", live=True)
    (finding,) = next(c for c in regression(before, after, TODAY) if c.id == "MT912").findings

    assert finding.subject == "Deployment/shop/cart" and "at its next rollout" in finding.message


def test_a_pod_that_lost_its_sidecar_is_found_though_the_template_is_the_same(tmp_path):
    def running(*, bare: bool) -> cases.Object:
        return cases.merged(cases.pod(owner=("Deployment", "cart"), name="cart-1", bare=bare),
                            {"metadata": {"labels": {"app": "cart"}, "uid": "1"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})  # fmt: skip

    before, after = (mesh(tmp_path, [*cases.world(), running(bare=bare)], str(bare), live=True) for bare in (False, True))

    assert found(regression(before, after, TODAY)) == {("MT912", "Deployment/shop/cart"), ("MT913", "Service/part/web")}


# --- guards --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vap", "kyverno", "gatekeeper"])
def test_a_guard_that_is_gone_or_does_less_is_found(tmp_path, engine):
    made = admission(cases.kept(), engine)
    before = mesh(tmp_path, [*cases.world(), *made], "before", live=True)
    lost = next(m for m in made if m["metadata"]["name"] == "meshtls-guard-shop-pods" and m["kind"] != "ValidatingAdmissionPolicy")
    softer = copy.deepcopy(made)
    for manifest in softer:
        if "validationActions" in manifest["spec"]:
            manifest["spec"]["validationActions"] = ["Audit", "Warn"]
        if "enforcementAction" in manifest["spec"]:
            manifest["spec"]["enforcementAction"] = "warn"
    gone = mesh(tmp_path, [*cases.world(), *(m for m in made if m is not lost)], "gone", live=True)
    weak = mesh(tmp_path, [*cases.world(), *softer], "weak", live=True)

    assert found(regression(before, gone, TODAY)) == {("MT916", f"{lost['kind']}/meshtls-guard-shop-pods")}
    softened = next(c for c in regression(before, weak, TODAY) if c.id == "MT916").findings
    assert len(softened) > 20 and all("now does warn; it did deny" in f.message for f in softened)
    assert not found(regression(before, before, TODAY))
    assert not found(regression(weak, before, TODAY))


def test_a_binding_whose_policy_is_gone_does_nothing(tmp_path):
    made = admission(cases.kept())
    before = mesh(tmp_path, [*cases.world(), *made], "before", live=True)
    after = mesh(tmp_path, [*cases.world(), *(m for m in made if (m["kind"], m["metadata"]["name"]) != ("ValidatingAdmissionPolicy", "meshtls-guard-shop-pods"))], "after", live=True)
    (finding,) = next(c for c in regression(before, after, TODAY) if c.id == "MT916").findings

    assert "has no policy any more" in finding.message


def status(checks: list[Check], code: str) -> tuple[Status, str]:
    return next((c.status, c.reason) for c in checks if c.id == code)


def test_guards_are_not_called_gone_where_manifests_hold_none_and_not_called_there_where_they_could_not_be_read(tmp_path):
    guarded = [*cases.world(), *admission(cases.kept())]
    before = mesh(tmp_path, guarded, "before", live=True)
    files = regression(before, mesh(tmp_path, cases.world(), "after"), TODAY)
    hidden = regression(before, mesh(tmp_path, guarded, "hidden", live=True, absent={"ValidatingAdmissionPolicyBinding": "may not list"}), TODAY)
    unserved = regression(before, mesh(tmp_path, guarded, "served", live=True, absent={"ValidatingPolicy": "the cluster does not serve this kind"}), TODAY)

    assert status(files, "MT916") == (Status.SKIP, "AFTER is manifests and holds no guard: whether those of before still stand is not known from it")
    assert status(hidden, "MT916") == (Status.ERROR, "ValidatingAdmissionPolicyBinding could not be read after: may not list")
    assert status(unserved, "MT916") == (Status.PASS, "")
    assert status(regression(mesh(tmp_path, cases.world()), before, TODAY), "MT916") == (Status.SKIP, "no guard of meshtls stood before")


def test_an_exception_that_is_over_is_told_once(tmp_path):
    given = {"rule": "host-network", "namespace": "shop", "subject": "DaemonSet/agent", "owner": "team-node", "reason": "x"}
    made = admission(with_granted(cases.kept(), entries([{**given, "expires": "2029-12-31"}, {**given, "expires": "2030-01-01", "subject": "DaemonSet/other"}], "f")))
    world = mesh(tmp_path, [*cases.world(), *made], live=True)
    (finding,) = next(c for c in regression(world, world, TODAY) if c.id == "MT917").findings

    assert finding.severity == "warning" and "team-node may no longer except DaemonSet/agent" in finding.message


# --- the verb ------------------------------------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(cli, ["guard", "check", *arguments])
    got = getattr(done.exception, "exit_code", None) if done.exception and not isinstance(done.exception, SystemExit) else done.exit_code
    assert got == code, (done.output, done.exception)
    return done


def dump(tmp_path: Path, name: str, objects: Objects, **absent: str) -> str:
    path = tmp_path / f"{name}.json"
    path.write_bytes(b"".join(write(mesh(tmp_path, objects, name, live=True, absent=absent))))
    return str(path)


def test_a_pull_request_is_checked_against_a_recorded_state_without_a_cluster(tmp_path):
    achieved = dump(tmp_path, "achieved", [*cases.world(), *admission(cases.kept())])
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(cases.deployment()))
    bad.write_text(yaml.safe_dump(cases.merged(cases.existing("Deployment", "cart"), OFF)))
    run(achieved, "--apply", str(good))
    text = run(achieved, "--apply", str(bad), code=1).stdout

    assert "MT912 Deployment/shop/cart" in text and "bad.yaml:" in text
    run(achieved, "--apply", str(bad), "--fail-on", "critical")
    run(achieved, "--apply", str(bad), "-n", "amb")
    document = json.loads(run(achieved, "--apply", str(bad), "--apply", str(good), "-o", "json", code=1).stdout)
    assert document["facts"]["compared"] == f"{achieved} with itself as {bad}, {good} would change it"


def test_a_deliberate_step_back_is_accepted_by_a_suppression(tmp_path):
    file = tmp_path / "suppress.yaml"
    file.write_text(yaml.safe_dump([{"code": "MT914", "subject": "Namespace/istio-system", "owner": "team-mesh", "reason": "x", "expires": "2999-01-01"}]))
    whole, weaker = dump(tmp_path, "whole", cases.world()), dump(tmp_path, "weaker", without("PeerAuthentication", "default", "istio-system"))

    run(whole, weaker, code=1)
    run(whole, weaker, "--suppress", str(file))


def test_a_recorded_state_is_compared_with_the_cluster(tmp_path):
    achieved = str(tmp_path / "achieved.json")
    with standalone() as api, client(api) as http:
        judges.fill(http, admission(cases.kept()))
        CliRunner().invoke(cli, ["dump", achieved, "--kubeconfig", api.kubeconfig], catch_exceptions=False)
        run(achieved, "--kubeconfig", api.kubeconfig)
        bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
        http.request("DELETE", bindings, params={"labelSelector": "meshtls.dev/guard=amb"}).raise_for_status()
        http.request("DELETE", judges.path(cases.existing("PeerAuthentication", "default", "amb"), True)).raise_for_status()
        http.post(judges.path(cases.policy("PERMISSIVE", namespace="amb")), json=cases.policy("PERMISSIVE", namespace="amb")).raise_for_status()
        document = json.loads(run(achieved, "--kubeconfig", api.kubeconfig, "-o", "json", code=1).stdout)

    found_ = {(f["code"], f["subject"]) for f in document["findings"]}
    assert ("MT914", "Namespace/amb") in found_ and document["facts"]["compared"] == f"{achieved} with the cluster"
    assert {s for c, s in found_ if c == "MT916"} == {f"ValidatingAdmissionPolicyBinding/meshtls-guard-amb-{t}" for t in ("policies", "calls", "pods", "workloads", "cronjobs", "labels")}
    assert {c for c, _ in found_} == {"MT911", "MT914", "MT916"}


def test_every_reader_gets_its_report(tmp_path):
    achieved, bad = dump(tmp_path, "achieved", cases.world()), tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(cases.merged(cases.existing("Deployment", "cart"), OFF)))
    files = {form: tmp_path / f"r.{form}" for form in ("junit", "sarif", "html", "markdown")}
    done = run(achieved, "--apply", str(bad), "-o", "json", "--report", ",".join(f"{form}={path}" for form, path in files.items()), code=1)
    document = json.loads(done.stdout)

    jsonschema.validate(document, json.loads((Path(__file__).parents[2] / "docs/schemas/report.schema.json").read_text()))
    assert document["kind"] == "GuardReport" and [f["code"] for f in document["findings"]] == ["MT912", "MT913"]
    assert all("MT912" in path.read_text() for path in files.values())


def test_a_kind_that_decides_and_could_not_be_read_is_no_pass(tmp_path):
    whole, part = dump(tmp_path, "whole", cases.world()), dump(tmp_path, "part", cases.world(), DestinationRule="may not list destinationrules")
    text = run(whole, part, code=3).stdout

    assert "DestinationRule could not be read" in text
    run(part, whole, code=3)


def test_findings_come_before_gaps(tmp_path):
    whole = dump(tmp_path, "whole", cases.world())
    part = dump(tmp_path, "part", without("PeerAuthentication", "default", "istio-system"), DestinationRule="may not list destinationrules")
    document = json.loads(run(whole, part, "-o", "json", code=1).stdout)

    assert [c["status"] for c in document["checks"] if c["id"] == "read"] == ["ERROR"]


@pytest.mark.parametrize(("arguments", "why"), [(("nowhere.yaml", "nowhere.yaml"), "nowhere.yaml"), ((str(cases.WORLD), str(cases.WORLD), "-n", "nope"), "no namespace nope")])
def test_what_cannot_be_compared_is_one_line(arguments, why):
    done = run(*arguments, code=2)

    assert why in done.stderr and "Traceback" not in done.output


def test_every_code_is_documented_and_has_a_case_that_finds_it():
    page = (Path(__file__).parents[2] / "docs/findings.md").read_text()
    here = Path(__file__).read_text()

    for question in QUESTIONS:
        assert f"## {question.code}: {question.title}" in page
        assert re.search(rf'"{question.code}"', here)

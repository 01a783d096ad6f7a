"""`meshtls migrate` from journal to exit code, against an API server without pods."""

import datetime
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from meshtls import sources
from meshtls.cli import many
from meshtls.cli.main import main
from meshtls.cli.options import Options
from meshtls.cluster import owned
from meshtls.cluster.client import Client
from meshtls.errors import NoData
from meshtls.migrate.blockers import Observed
from meshtls.migrate.journal import Going, Outcome, begin
from meshtls.migrate.journal import State as Stand
from meshtls.migrate.plan import Plan, Stage
from meshtls.migrate.preflight import rehearse
from meshtls.migrate.store import Store
from meshtls.migrate.waves import Place, State, document
from meshtls.model.check import Check, Finding, Severity, Status
from meshtls.model.mesh import Mesh
from tests.lone_api import Standalone, standalone

Ask = Callable[..., tuple[int, str]]
STRICT = {"mtls": {"mode": "STRICT"}}


@pytest.fixture
def api() -> Iterator[Standalone]:
    def prepare(store: Any) -> None:
        store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"},
                                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})  # fmt: skip

    with standalone(prepare=prepare) as running:
        yield running


@pytest.fixture
def ask(api: Standalone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig)

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["meshtls", "migrate", *line.split()])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out + said.err

    return run


def policy(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def done(api: Standalone, state: Stand = Stand.PASSED, outcome: Outcome = Outcome.DONE) -> None:
    """A run that has made `default` STRICT where there was none."""
    with Client.connect(api.kubeconfig) as client:
        uid = client.create(policy("default", "shop", STRICT))["metadata"]["uid"]
        stage = Stage(id="namespace", policy="default", create=True, mode="STRICT")
        made = begin(Plan(namespace="shop", was="PERMISSIVE", stages=(stage,)), run="r", now="2026-01-01T00:00:00Z", who="ann", soak_s=1,
                     forced=False, accepted=()).update("namespace", state=state, uid=uid, wanted=STRICT)  # fmt: skip
        Store(client, "shop").save(msgspec.structs.replace(made, outcome=outcome))


def left(api: Standalone) -> list[str]:
    with Client.connect(api.kubeconfig) as client:
        return [o["metadata"]["name"] for o in client.list("PeerAuthentication", "shop")]


def test_a_rollback_that_restores_everything_ends_with_0(api: Standalone, ask: Ask) -> None:
    done(api)
    code, said = ask("rollback -n shop --yes")
    assert code == 0, said
    assert "everything is as it was" in said
    assert left(api) == []
    code, said = ask("rollback -n shop --yes")
    assert code == 0
    assert "nothing to roll back" in said


def test_a_policy_that_is_absent_again_under_a_mesh_that_went_strict_is_told(api: Standalone, ask: Ask) -> None:
    done(api)
    with Client.connect(api.kubeconfig) as client:
        client.create(policy("default", "istio-system", STRICT))
    code, said = ask("rollback -n shop --yes")
    assert code == 4, said
    assert "the mode is STRICT and was PERMISSIVE" in said
    assert left(api) == []


def test_an_unfinished_run_is_told_and_a_dry_run_leaves_it(api: Standalone, ask: Ask) -> None:
    done(api, Stand.APPLIED, Outcome.NONE)
    code, said = ask("status -n shop")
    assert code == 4, said
    code, said = ask("apply -n shop --dry-run")
    assert code == 4, said
    assert "it goes forward, to STRICT" in said
    assert "nothing was changed" in said
    assert left(api) == ["default"]


@pytest.mark.parametrize("line", ["apply -n shop", "rollback -n shop"])
def test_nobody_is_asked_where_nobody_can_answer(api: Standalone, ask: Ask, line: str) -> None:
    done(api, Stand.APPLIED, Outcome.NONE)
    code, said = ask(line)
    assert code == 2, said
    assert "give --yes" in said
    assert "fault in meshtls" not in said
    assert left(api) == ["default"]


@pytest.mark.parametrize(("answer", "expected"), [("y", 0), ("n", 0), ("abort", 130)])
def test_a_question_can_be_answered_refused_or_left(
    api: Standalone, ask: Ask, monkeypatch: pytest.MonkeyPatch, answer: str, expected: int
) -> None:
    done(api)

    def confirm(question: str, err: bool) -> bool:
        if answer == "abort":
            raise click.exceptions.Abort
        return answer == "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    code, said = ask("rollback -n shop")
    assert code == expected, said
    assert "fault in meshtls" not in said
    assert answer != "abort" or "\nmeshtls: interrupted" in said
    assert left(api) == ([] if answer == "y" else ["default"])


def test_a_lease_is_not_left_by_what_ends_early(api: Standalone, ask: Ask) -> None:
    done(api, Stand.APPLIED, Outcome.NONE)
    ask("apply -n shop")
    with Client.connect(api.kubeconfig) as client:
        assert client.list("Lease", "shop") == []


VALIDATOR = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "istiod-default-validator"},
    "webhooks": [{
        "name": "validation.istio.io", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system", "path": "/validate", "port": 443}},
        "rules": [{"apiGroups": ["security.istio.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}],
    }],
}  # fmt: skip


def test_a_validator_that_is_down_holds_the_run_before_anything_is_changed(api: Standalone, ask: Ask) -> None:
    with Client.connect(api.kubeconfig) as client:
        client.create(VALIDATOR)
    code, said = ask("apply -n shop --yes --force")

    assert code == 4, said
    assert "failed calling webhook" in said
    assert "validation.istio.io" in said
    assert left(api) == []
    with Client.connect(api.kubeconfig) as client:
        assert [o["metadata"]["name"] for o in client.list("ConfigMap", "shop") if "meshtls" in o["metadata"]["name"]] == []


def test_a_webhook_served_from_inside_the_namespace_holds_the_run_whatever_is_forced(api: Standalone, ask: Ask) -> None:
    """A dry run passes before the switch: only where the webhook is served from tells that STRICT would cut it off."""
    hook = VALIDATOR["webhooks"][0]
    inside = {**hook, "clientConfig": {"service": {"name": "hook", "namespace": "shop"}},
              "rules": [{**hook["rules"][0], "operations": ["DELETE"]}]}  # fmt: skip
    with Client.connect(api.kubeconfig) as client:
        client.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook", "namespace": "shop"},
                       "spec": {"selector": {"app": "hook"}, "ports": [{"name": "https", "port": 443}]}})  # fmt: skip
        client.create({**VALIDATOR, "webhooks": [inside]})
    code, said = ask("apply -n shop --yes --force")

    assert code == 4, said
    assert "STRICT would cut it off, and then it would refuse the way back" in said
    assert left(api) == []


def test_a_journal_that_is_kept_elsewhere_is_not_overlooked(api: Standalone, ask: Ask) -> None:
    """A colleague who does not know the flag must not be told that nothing was done, nor begin a second run."""
    with Client.connect(api.kubeconfig) as client:
        stage = Stage(id="namespace", policy="default", create=True, mode="STRICT")
        made = begin(Plan(namespace="shop", was="PERMISSIVE", stages=(stage,)), run="r", now="2026-01-01T00:00:00Z", who="ann", soak_s=1,
                     forced=False, accepted=()).update("namespace", state=Stand.INTENT, wanted=STRICT)  # fmt: skip
        Store(client, "shop", "default").save(made)
    for line in ("status -n shop", "rollback -n shop --yes", "apply -n shop --yes"):
        code, said = ask(line)
        assert code == 2, said
        assert "its journal is kept in default (add --journal-namespace default)" in said
    code, said = ask("rollback -n shop --yes --journal-namespace default")
    assert code == 0, said


def test_a_stuck_run_is_closed_with_what_somebody_else_changed_left_as_it_is(api: Standalone, ask: Ask) -> None:
    done(api)
    with Client.connect(api.kubeconfig) as client:
        held = client.get("PeerAuthentication", "default", "shop")
        client.replace({**held, "spec": {"mtls": {"mode": "DISABLE"}}})
    code, said = ask("rollback -n shop --yes")
    assert code == 4, said
    assert "meshtls migrate rollback --leave -n shop" in said
    code, said = ask("rollback -n shop --yes --leave")
    assert code == 0, said
    assert left(api) == ["default"]
    code, said = ask("rollback -n shop --yes")
    assert code == 0, said
    assert "nothing to roll back" in said
    code, said = ask("status -n shop")
    assert code == 0, said


RATCHET = [
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "ratchet"},
     "spec": {"failurePolicy": "Fail",
              "matchConstraints": {"resourceRules": [{"apiGroups": ["security.istio.io"], "apiVersions": ["*"], "operations": ["UPDATE"],
                                                      "resources": ["peerauthentications"]}]},
              "validations": [{"expression": "oldObject.spec.mtls.mode != 'STRICT' || object.spec.mtls.mode == 'STRICT'",
                               "message": "what is STRICT stays STRICT"}]}},
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "ratchet"},
     "spec": {"policyName": "ratchet", "validationActions": ["Deny"]}},
]  # fmt: skip
NO_DELETION = [
    {**RATCHET[0], "spec": {**RATCHET[0]["spec"], "validations": [{"expression": "false", "message": "no policy may be deleted"}],
     "matchConstraints": {"resourceRules": [{**RATCHET[0]["spec"]["matchConstraints"]["resourceRules"][0], "operations": ["DELETE"]}]}}},
    RATCHET[1],
]  # fmt: skip


def rehearsed(api: Standalone, stage: Stage, policies: list[dict[str, Any]]) -> str:
    """What a rehearsal under these admission policies says."""
    with Client.connect(api.kubeconfig) as client:
        for obj in policies:
            path = f"/apis/admissionregistration.k8s.io/v1/{obj['kind'].lower().replace('policy', 'policies') if obj['kind'].endswith('Policy') else 'validatingadmissionpolicybindings'}"
            client.raw("POST", path, body=msgspec.json.encode(obj))
        journal = begin(Plan(namespace="shop", was="PERMISSIVE", stages=(stage,)), run="r", now="t", who="ann", soak_s=1, forced=False, accepted=())
        return rehearse(client, journal)


@pytest.mark.parametrize(("found", "policies", "said"), [
    ("PERMISSIVE", RATCHET, "what is STRICT stays STRICT"), ("", NO_DELETION, "no policy may be deleted"), ("PERMISSIVE", [], ""), ("", [], ""),
])  # fmt: skip
def test_admission_that_would_refuse_the_way_back_is_found_before_anything_is_strict(
    api: Standalone, found: str, policies: list[dict[str, Any]], said: str
) -> None:
    """A dry run of the rollback before the switch passes all of these."""
    stage = Stage(id="namespace", policy="default", create=not found, mode="STRICT", found=found)
    problem = rehearsed(api, stage, policies)

    assert said in problem and bool(said) == bool(problem), problem
    with Client.connect(api.kubeconfig) as client:
        kept = [o["spec"]["selector"]["matchLabels"] for o in client.list("PeerAuthentication", "shop")]
        left_over = [(each.ref, each.run) for each in owned.find(client, ["shop"], datetime.datetime.now(datetime.UTC))]
    assert left_over == [("PeerAuthentication/shop/meshtls-rehearsal-r", "r")] * len(kept)
    assert kept == ([{"meshtls.dev/rehearsal": "r"}] if policies is NO_DELETION else [])
    assert not kept or "is left" in problem


def run_of(api: Standalone, namespace: str, outcome: Outcome, place: str = "") -> None:
    with Client.connect(api.kubeconfig) as client:
        stage = Stage(id="namespace", policy="default", create=True, mode="STRICT")
        made = begin(Plan(namespace=namespace, was="PERMISSIVE", stages=(stage,)), run="r", now="2026-01-01T00:00:00Z", who="ann", soak_s=1,
                     forced=False, accepted=())  # fmt: skip
        Store(client, namespace, place).save(msgspec.structs.replace(made, outcome=outcome, reason="why" if outcome is Outcome.STUCK else ""))


def test_one_list_says_where_every_run_is(api: Standalone, ask: Ask) -> None:
    assert ask("status -A") == (0, "no run was made\n")
    run_of(api, "shop", Outcome.DONE)
    assert ask("status -A")[0] == 0
    run_of(api, "default", Outcome.STUCK, place="kube-system")
    code, said = ask("status -A")
    assert code == 4
    lines = said.splitlines()
    assert lines[1].split()[:2] == ["default", "STUCK"] and lines[2].split()[:2] == ["shop", "DONE"], "the unfinished first"


def test_a_journal_that_cannot_be_read_is_in_the_list_and_no_success(api: Standalone, ask: Ask) -> None:
    run_of(api, "shop", Outcome.DONE)
    with Client.connect(api.kubeconfig) as client:
        held = client.get("ConfigMap", "meshtls-journal-shop", "shop")
        client.replace({**held, "data": {"journal.json": "{"}})
    code, said = ask("status -A")
    assert code == 4
    assert "UNREADABLE" in said


@pytest.mark.parametrize("line", ["rollback -A --yes", "rollback -n shop,default --yes"])
def test_a_rollback_is_of_one_namespace(ask: Ask, line: str) -> None:
    code, said = ask(line)
    assert code == 2
    assert "one namespace" in said


def test_where_nothing_is_in_the_mesh_a_plan_of_all_says_so(ask: Ask) -> None:
    code, said = ask("plan -A")
    assert code == 0
    assert "no namespace has a workload in the mesh" in said


PLACES = (
    Place(namespace="a", state=State.SAFE, was="PERMISSIVE", wave=1), Place(namespace="b", state=State.SAFE, was="PERMISSIVE", wave=1),
    Place(namespace="c", state=State.AFTER, was="PERMISSIVE", wave=2, after=("a",)), Place(namespace="d", state=State.BLOCKED, was="PERMISSIVE"),
)  # fmt: skip


@pytest.mark.parametrize(("held", "went", "code", "said"), [
    ("", ["a", "b", "c"], 4, "done: a, b, c; remaining: d"), ("b", ["a", "b"], 4, "done: a; remaining: b, c, d"),
])  # fmt: skip
def test_several_go_in_order_until_one_is_held(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, held: str, went: list[str], code: int, said: str
) -> None:
    from meshtls.cli import many

    began: list[str] = []

    def forward(options: Any, client: Any, draft: Any, namespace: str, *rest: Any) -> None:
        began.append(namespace)
        draft.code = 4 if namespace == held else 0

    monkeypatch.setattr(many, "order", lambda *_: (None, document(PLACES)))
    monkeypatch.setattr(many, "forward", forward)
    found, text = ask("apply -A --yes")
    assert (began, found) == (went, code)
    assert said in text


def test_the_stages_are_written_as_files_and_nothing_is_written_over(api: Standalone, ask: Ask, tmp_path: Path) -> None:
    with Client.connect(api.kubeconfig) as client:
        client.create(policy("default", "shop", {"mtls": {"mode": "PERMISSIVE"}}))
    code, said = ask(f"plan -n shop --emit {tmp_path}")
    assert code == 4, "nothing is in the mesh there, and the plan says so"
    found = {str(path.relative_to(tmp_path)): yaml.safe_load(path.read_text())["spec"] for path in tmp_path.rglob("*.yaml")}
    assert found == {"shop/0-before/default.yaml": {"mtls": {"mode": "PERMISSIVE"}}, "shop/1-namespace/default.yaml": STRICT}
    code, said = ask(f"plan -n shop --emit {tmp_path}")
    assert code == 2
    assert "exists" in said


def test_what_git_owns_is_not_touched_without_the_flag(api: Standalone, ask: Ask) -> None:
    with Client.connect(api.kubeconfig) as client:
        owned = policy("default", "shop", {"mtls": {"mode": "PERMISSIVE"}})
        owned["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:x"}
        client.create(owned)
    code, said = ask("apply -n shop --yes --force")
    assert code == 4
    assert "Argo CD writes this policy: it would take the change back" in said
    assert "meshtls migrate plan -n shop --emit DIR" in said
    _, said = ask("apply -n shop --yes --force --gitops-override")
    assert "Argo CD writes this policy" not in said


def test_where_nothing_is_strict_there_is_nothing_to_verify(ask: Ask) -> None:
    code, said = ask("verify -n shop")
    assert code == 2
    assert "there is nothing to verify" in said


def test_what_may_not_be_read_is_told_and_holds(api: Standalone, ask: Ask) -> None:
    api.fail(403, method="GET", path="/apis/networking.istio.io/.*destinationrules")
    code, said = ask("apply -n shop --yes")
    assert code == 4
    assert "HELD  not so, or not known: every kind that decides could be read: DestinationRule could not be read" in said


@pytest.mark.parametrize("going", list(Going))
def test_every_state_of_a_journal_has_a_status_and_a_way_on(api: Standalone, ask: Ask, going: Going) -> None:
    """Whatever a run left: status tells it, and a rollback from another machine ends it."""
    for state in Stand:
        for outcome in (Outcome.NONE, Outcome.STUCK, Outcome.DONE):
            done(api, state, outcome)
            with Client.connect(api.kubeconfig) as client:
                if state in (Stand.PLANNED, Stand.UNDONE):
                    client.delete("PeerAuthentication", "default", "shop")
                store = Store(client, "shop")
                journal = store.load()
                assert journal is not None
                store.save(msgspec.structs.replace(journal, going=going))
            where = f"{state} {outcome} {going}"
            code, said = ask("status -n shop")
            assert code == (0 if outcome is Outcome.DONE else 4), f"{where}: {said}"
            if outcome is not Outcome.DONE and state is not Stand.PLANNED:
                code, said = ask("apply -n shop --dry-run")
                assert code == 4 and f"it goes {'forward' if going is Going.FORWARD else 'back'}" in said, f"{where}: {said}"
            code, said = ask("rollback -n shop --yes")
            assert code == 0, f"{where}: {said}"
            assert left(api) == [], where
            with Client.connect(api.kubeconfig) as client:
                client.delete("ConfigMap", "meshtls-journal-shop", "shop")


def test_who_interrupts_several_is_told_what_is_done_and_what_remains(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshtls.cli import many

    def forward(options: Any, client: Any, draft: Any, namespace: str, *rest: Any) -> None:
        if namespace == "b":
            raise KeyboardInterrupt
        draft.code = 0

    monkeypatch.setattr(many, "order", lambda *_: (None, document(PLACES)))
    monkeypatch.setattr(many, "forward", forward)
    code, said = ask("apply -A --yes")
    assert code == 130
    assert "done: a; remaining: b, c, d" in said


def test_where_a_kind_may_not_be_read_no_namespace_is_called_safe(api: Standalone, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshtls.cli import many

    seen: dict[str, Any] = {}
    monkeypatch.setattr(many, "waves", lambda mesh, names, observed, *rest: seen.update(observed) or ())
    api.fail(403, method="GET", path="/apis/networking.istio.io/.*destinationrules")
    ask("plan -n shop,default")
    assert {one.unknown.partition(" could")[0] for one in seen.values()} == {"DestinationRule"}


def test_what_holds_a_run_names_whom_it_is_about_and_how_many_more_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    from meshtls.cli.groundwork import held
    from meshtls.cli.output import Draft
    from meshtls.migrate.baseline import Waiver

    lost = [Finding(code="MT703", severity=Severity.ERROR, subject=f"Deployment/shop/{name}", message="would no longer reach it") for name in "abcd"]
    spoken = Finding(code="MT601", severity=Severity.ERROR, subject="Deployment/x/y", message="Deployment/x/y (pod z) sends plaintext")
    checks = (Check(id="baseline/observed/y", title="heard", status=Status.FAIL, findings=(spoken,)),
              Check(id="baseline/prediction", title="nobody breaks", status=Status.FAIL, findings=tuple(lost)))  # fmt: skip
    assert held(checks, Waiver(), Draft("MigrateReport", "Plan"))
    assert capsys.readouterr().err.splitlines()[:-1] == [
        "HELD  Deployment/x/y (pod z) sends plaintext",
        *(f"HELD  Deployment/shop/{name}: would no longer reach it" for name in "abc"),
        "HELD  and 1 more: nobody breaks",
    ]


def test_a_plan_of_many_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from meshtls.cli import many
    from meshtls.migrate.blockers import Blocker

    blocker = Blocker(by="audit", code="MT230", client="ValidatingWebhookConfiguration/policy.shop.example", server="Deployment/platform/policy", port=9443, says="")
    plan = document([Place(namespace="platform", state=State.BLOCKED, was="PERMISSIVE", because="by it", blockers=(blocker,))])
    monkeypatch.setattr(many.output, "terminal_width", lambda: 80)
    shown = many.shown(plan, False)
    assert "  ValidatingWebhookConfiguration/policy.shop.example (audit MT230)\n    at Deployment/platform/policy port 9443\n" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("kind", ["Pod", "PeerAuthentication", "Namespace"])
def test_where_a_kind_that_decides_may_not_be_read_no_namespace_is_done_with(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = sources.load([str(Path(__file__).parents[1] / "guard" / "world.yaml")])
    monkeypatch.setattr(many.sources, "load", lambda client: msgspec.structs.replace(mesh, absent={kind: "may not list"}))
    monkeypatch.setattr(many, "_observed", lambda *_: Observed())
    _, found = many.order(None, Options(all_namespaces=True), 60.0, ())  # type: ignore[arg-type]

    assert many.code(found) == 4 and not found.waves
    assert {place.state for place in found.items} <= {State.UNKNOWN, State.BLOCKED} and all("may not list" in p.because for p in found.items if p.state is State.UNKNOWN)


def test_where_no_workload_may_be_read_there_is_no_list_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many.sources, "load", lambda client: Mesh(absent={"Pod": "may not list", "Deployment": "may not list"}))
    with pytest.raises(NoData, match="Pod could not be read"):
        many.order(None, Options(all_namespaces=True), 60.0, ())  # type: ignore[arg-type]

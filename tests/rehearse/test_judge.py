"""What calls and policies say about a rehearsal: a call is judged only if it worked before, and exact means the same objects."""

import pytest

from meshtls.model.check import Check, Finding, Severity, Status
from meshtls.model.origin import Origin, Origins
from meshtls.rehearse import judge
from meshtls.rehearse.calls import Call
from meshtls.rehearse.judge import Attempt, Times
from tests.rehearse.meshes import BILLING, GATEWAY

CALL = Call(BILLING, GATEWAY, 80)
TIMES = Times(changed=10.0, ended=20.0, back=30.0)


def made(before="++", during="++++", after="++"):
    """Attempts at one call: + answered, - refused."""
    spans = ((5.0, before), (12.0, during), (31.0, after))
    return [Attempt(start + n * 0.5, "0", sign == "+", "answered 200" if sign == "+" else "reset") for start, signs in spans for n, sign in enumerate(signs)]


def checked(attempts, **how):
    return {c.id: c for c in judge.checks({"0": CALL}, attempts, TIMES, **{"stayed": True, **how})}


def test_a_call_that_is_answered_all_the_time_passes():
    found = checked(made())

    assert found["rehearse/call/0"].status is Status.PASS and found["rehearse/back/0"].status is Status.PASS


@pytest.mark.parametrize(("during", "stayed", "severity", "says"), [
    ("+---", True, Severity.ERROR, "would be refused at Service/payments/gateway port 80: reset (3 of 4 calls)"),
    ("+-++", True, Severity.WARNING, "would lose some calls at Service/payments/gateway port 80: reset (1 of 4 calls)"),
    ("+-++", False, Severity.ERROR, "would be refused at Service/payments/gateway port 80: reset (1 of 4 calls, until all was taken back)")])
def test_a_call_that_fails_is_a_finding_that_names_its_client(during, stayed, severity, says):
    check = checked(made(during=during), stayed=stayed)["rehearse/call/0"]

    assert check.status is Status.FAIL
    [finding] = check.findings
    assert (finding.code, finding.subject, finding.severity) == ("MT721", BILLING, severity) and says in finding.message


@pytest.mark.parametrize(("attempts", "says"), [
    (made(before="--"), "it fails before anything is changed: reset"), (made(before="+-"), "fails before"), (made(before=""), "it was not made"),
    (made(during=""), "it was not made while the namespace changed"), ([], "it was not made")])
def test_a_call_that_did_not_work_before_or_was_not_made_is_not_judged(attempts, says):
    check = checked(attempts)["rehearse/call/0"]

    assert check.status is Status.ERROR and says in check.reason and not check.findings


def test_a_refusal_that_was_accepted_fails_nothing():
    check = checked(made(during="----"), accepted=("legacy/billing",))["rehearse/call/0"]

    assert check.status is Status.PASS and check.findings[0].accepted
    assert checked(made(during="----"), accepted=("legacy/other",))["rehearse/call/0"].status is Status.FAIL


@pytest.mark.parametrize(("after", "status"), [("++", Status.PASS), ("-++", Status.PASS), ("+-", Status.FAIL), ("", Status.ERROR)])
def test_after_the_way_back_a_call_works_as_before(after, status):
    assert checked(made(during="----", after=after))["rehearse/back/0"].status is status


def test_calls_are_settled_when_each_was_answered_twice_in_a_row():
    assert judge.settled(made("-++", "", ""), ["0"])
    assert not judge.settled(made("++-", "", ""), ["0"]) and not judge.settled(made("+", "", ""), ["0"]) and not judge.settled(made(), ["0", "1"])
    assert judge.asked(made("--", "", ""), ["0"], 0.0) and not judge.asked(made("--", "", ""), ["0"], 5.2)


def test_lines_of_a_log_that_are_no_attempts_are_passed_over():
    lines = ['{"ready": true}', "Traceback", "", '{"call":"0","at":1.5,"ok":false,"said":"reset"}', '{"call": "0"}', "\ud83d"]

    assert judge.read(lines[:5]) == [Attempt(1.5, "0", False, "reset")]


def policy(name="default", uid="1", mode="PERMISSIVE", **meta):
    return {"metadata": {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "5", **meta}, "spec": {"mtls": {"mode": mode}}}


def test_the_same_objects_with_other_counters_are_restored_exactly():
    after = policy(resourceVersion="9", generation=3, managedFields=[])

    assert judge.exactly("shop", [policy()], [after], []).status is Status.PASS


@pytest.mark.parametrize(("before", "after", "left", "says"), [
    ([policy()], [], [], "PeerAuthentication/shop/default is gone"),
    ([], [policy()], [], "PeerAuthentication/shop/default was not there"),
    ([policy()], [policy(mode="STRICT")], [], "differs in spec"),
    ([policy()], [policy(uid="2")], [], "differs in uid"),
    ([policy()], [policy(labels={"a": "b"})], [], "differs in labels"),
    ([], [], ["Pod meshtls-1"], "Pod meshtls-1 is left")])
def test_anything_else_is_a_finding(before, after, left, says):
    check = judge.exactly("shop", before, after, left)

    assert check.status is Status.FAIL and says in check.findings[0].message


def test_the_matrix_shows_each_call_before_while_strict_and_after():
    cells = judge.matrix({"0": CALL}, made(during="+---"), TIMES, True).cells

    assert [(c.column, c.observed, c.ok) for c in cells] == [("before", "ANSWERED", True), ("STRICT", "REFUSED", False), ("restored", "ANSWERED", True)]
    assert {c.ok for c in judge.matrix({"0": CALL}, made(before="--"), TIMES, True).cells} == {None}


def test_stand_ins_are_told_by_the_names_of_their_workloads_and_findings_by_the_places_of_the_source():
    renamed = {"Deployment/legacy/export": "CronJob/legacy/export"}
    finding = Finding(code="MT711", severity=Severity.ERROR, subject="Deployment/legacy/export", message="Deployment/legacy/export (pod x) was refused")
    check = Check(id="gate/x", title="t", status=Status.FAIL, reason="Deployment/legacy/export-2 and Deployment/legacy/export.", findings=(finding,))
    told = judge.as_told(check, renamed, Origins(locate=lambda ref, path: Origin("file.yaml", 3) if ref.startswith("CronJob") else Origin()), "rollback/")

    assert (told.id, told.reason) == ("rollback/gate/x", "Deployment/legacy/export-2 and CronJob/legacy/export.")
    assert told.findings[0].subject == "CronJob/legacy/export" and told.findings[0].message.startswith("CronJob/legacy/export (pod")
    assert (told.findings[0].file, told.findings[0].line) == ("file.yaml", 3)


def _check(name, status=Status.PASS):
    return Check(id=name, title="t", status=status, reason="r")


@pytest.mark.parametrize(("code", "stayed", "migrated", "own", "says"), [
    (None, True, ["gate/canary/x", "gate/namespace/x"], [Status.PASS, Status.SKIP], "shop would go STRICT, stage by stage, and the way back is exact"),
    (None, True, ["gate/namespace/x"], [Status.FAIL, Status.ERROR], "shop would go STRICT, but with 1 of the questions badly answered and 1 of the questions not judged"),
    (None, False, [], [Status.PASS], "shop is STRICT already: nothing would be changed"),
    (4, False, ["baseline/observed"], [Status.PASS], "shop would be held, with nothing changed"),
    (4, False, ["gate/canary/x", "gate/namespace/x"], [Status.FAIL], "shop would go back at stage namespace"),
    (4, True, ["gate/namespace/x"], [Status.FAIL], "shop would go STRICT, and the way back would not end as it should")])
def test_a_rehearsal_is_one_sentence_in_the_end(code, stayed, migrated, own, says):
    assert judge.verdict("shop", code, stayed, [_check(name) for name in migrated], [_check("x", status) for status in own]) == says

"""Expectation beside observation, and the two laws of proof."""

import json

import pytest
from world import a_plan, answer, line, pod

from meshtls.model.check import Status
from meshtls.probe import compare
from meshtls.probe.case import HTTP, TCP, Mode, Outcome
from meshtls.probe.compare import Seen
from meshtls.probe.expect import expectation
from meshtls.probe.read import Reader
from meshtls.report.console import Style
from meshtls.report.grid import grid

PLAN = a_plan("a", "b")


def mode_of(case, mode):
    return mode if case.server.meshed else Mode.UNENFORCED


def observe(plan, lines):
    reader = Reader([case.id for case in (*plan.cases, *plan.handshakes)])
    for entry in lines:
        reader.take(json.dumps(entry))
    return reader.reading().observations


def all_answers(mode, plan=PLAN):
    return {case.id: answer(case, mode_of(case, mode), case.port.protocol == "http") for case in plan.cases}


def judged(answers, expected_mode, plan=PLAN, logged=()):
    seen = Seen(plan, observe(plan, answers.values()), logged)
    return {case.id: compare.judge(case, expectation(case, mode_of(case, expected_mode)), seen) for case in plan.cases}


def find(offer, port=HTTP, client="a bare", server="b meshed", plan=PLAN):
    return next(
        c for c in plan.cases if (c.offer.name, c.port, c.client.title, c.server.title) == (offer, port, client, server)
    )


def test_a_strict_mesh_seen_as_expected_passes_in_every_cell():
    verdicts = judged(all_answers(Mode.STRICT), Mode.STRICT)

    assert {v.ok for v in verdicts.values()} == {True}
    assert {c.status for c in compare.checks(list(verdicts.values()))} == {Status.PASS}


def test_under_permissive_only_tcp_mtls_cannot_be_told_without_a_log():
    verdicts = judged(all_answers(Mode.PERMISSIVE), Mode.PERMISSIVE)
    unknown = [v.case for v in verdicts.values() if v.ok is None]

    assert {(c.offer.name, c.port, c.server.meshed) for c in unknown} == {("mtls", TCP, True)}
    assert {v.ok for v in verdicts.values()} == {True, None}
    assert {c.status for c in compare.checks([v for v in verdicts.values() if v.ok is None])} == {Status.SKIP}


def test_the_servers_proxy_log_tells_tcp_mtls():
    case = find("mtls", TCP, "a meshed")
    verdict = judged(all_answers(Mode.PERMISSIVE), Mode.PERMISSIVE, logged=[case.id])[case.id]

    assert (verdict.ok, verdict.outcome) == (True, Outcome.MTLS)


def test_plaintext_accepted_where_strict_was_expected_is_critical():
    verdicts = judged(all_answers(Mode.PERMISSIVE), Mode.STRICT)
    (check,) = compare.checks([verdicts[find("plaintext").id]])

    assert (check.status, check.findings[0].code, check.findings[0].severity) == (Status.FAIL, "MT501", "critical")


def test_a_refusal_without_its_control_is_no_proof():
    answers = all_answers(Mode.STRICT)
    for case in PLAN.cases:
        if case.offer.name in ("mtls", "tls"):
            answers[case.id] = line(case.id, "REFUSED")
    (check,) = compare.checks([judged(answers, Mode.STRICT)[find("plaintext").id]])

    assert check.status is Status.ERROR
    assert check.reason.startswith("refused, but its control failed")


@pytest.mark.parametrize("outcome", ["UNREACHABLE", "STALLED", "NOT_RUN"])
def test_what_is_unknown_is_never_a_refusal(outcome):
    case = find("plaintext")
    answers = all_answers(Mode.STRICT) | {case.id: line(case.id, outcome)}
    (check,) = compare.checks([judged(answers, Mode.STRICT)[case.id]])

    assert check.status is Status.ERROR


def test_a_refusal_by_something_else_than_the_mesh_is_told():
    case = find("unknown-ca")
    answers = all_answers(Mode.STRICT) | {case.id: line(case.id, "REFUSED", mesh=False)}
    verdict = judged(answers, Mode.STRICT)[case.id]

    assert (verdict.ok, verdict.reason) == (False, "no mesh certificate was shown")


def test_mtls_that_fails_is_an_error():
    case = find("mtls", client="a meshed")
    answers = all_answers(Mode.STRICT) | {case.id: line(case.id, "REFUSED")}
    (check,) = compare.checks([judged(answers, Mode.STRICT)[case.id]])

    assert (check.status, check.findings[0].code) == (Status.FAIL, "MT502")


def test_matrices_have_a_row_for_each_pair_and_a_column_for_each_offer_of_its_clients():
    verdicts = list(judged(all_answers(Mode.STRICT), Mode.STRICT).values())
    matrices = compare.matrices(verdicts)

    assert [m.title for m in matrices] == [
        "Port 8080 (http-echo), clients with sidecar",
        "Port 8080 (http-echo), clients without sidecar",
        "Port 9000 (tcp-echo), clients with sidecar",
        "Port 9000 (tcp-echo), clients without sidecar",
    ]
    assert [len(m.rows) for m in matrices] == [8, 8, 8, 8]
    assert matrices[0].columns == ("plaintext", "mTLS")
    assert matrices[1].columns == ("plaintext", "TLS, no cert", "TLS, unknown CA")
    assert sum(len(m.cells) for m in matrices) == len(PLAN.cases)


def test_the_matrices_of_the_default_offers_fit_80_columns_without_an_empty_cell():
    for matrix in compare.matrices(list(judged(all_answers(Mode.STRICT), Mode.STRICT).values())):
        lines = grid(matrix, Style(width=80, unicode=True))
        assert len(lines) == 1 + 1 + len(matrix.rows) + 1
        assert max(len(line) for line in lines) <= 80
        assert len(matrix.cells) == len(matrix.rows) * len(matrix.columns)


def test_check_ids_are_unique():
    verdicts = list(judged(all_answers(Mode.STRICT), Mode.STRICT).values())

    assert len({check.id for check in compare.checks(verdicts)}) == len(PLAN.cases)


FINGERPRINTS = [
    # by the policies, handshake with ALPN shows a mesh certificate, without -> status, code
    (Mode.STRICT, True, True, Status.PASS, ""),
    (Mode.STRICT, True, False, Status.FAIL, "MT505"),
    (Mode.PERMISSIVE, True, False, Status.PASS, ""),
    (Mode.UNENFORCED, False, False, Status.PASS, ""),
    (Mode.UNKNOWN, True, True, Status.SKIP, ""),
]


@pytest.mark.parametrize("known, istio, plain, status, code", FINGERPRINTS)
def test_the_mode_on_the_wire_stands_beside_the_policies(known, istio, plain, status, code):
    plan = a_plan("a", cells=False, pods=[pod("web")], mode_of=lambda pod, port: (known, ("why",)))
    with_alpn, without = plan.handshakes
    seen = Seen(
        plan, observe(plan, [line(with_alpn.id, "REFUSED", mesh=istio), line(without.id, "REFUSED", mesh=plain)])
    )
    (check,), (matrix,) = compare.fingerprints(plan, seen)

    assert check.status is status
    assert [f.code for f in check.findings] == ([code] if code else [])
    assert (matrix.rows, matrix.columns) == (("a/web",), ("8080",))


def test_a_handshake_without_answer_is_an_error_not_a_mode():
    plan = a_plan("a", cells=False, pods=[pod("web")], mode_of=lambda pod, port: (Mode.STRICT, ()))
    (check,), _ = compare.fingerprints(plan, Seen(plan, {}))

    assert check.status is Status.ERROR


def test_a_log_line_proves_only_its_own_pair_and_port():
    case = find("mtls", TCP, "a meshed")
    observations = observe(PLAN, [line(case.id, "NOT_RUN", answered=True)])
    wire = '"- - -" 0 - - - "-" 21 90 2 - "-" "-" "-" "-" "10.0.0.5:9000" inbound|9000|| 127.0.0.6:1 10.0.0.5:9000 10.0.0.7:41 outbound_.9000_._.e.b.svc.cluster.local -'
    addresses, sources = {case.server: "10.0.0.5"}, {case.client: "10.0.0.7"}

    assert compare.logged_as_mtls(PLAN, observations, addresses, sources, [wire]) == {case.id}
    assert compare.logged_as_mtls(PLAN, observations, addresses, {case.client: "10.0.0.8"}, [wire]) == frozenset()
    assert (
        compare.logged_as_mtls(
            PLAN, observations, addresses, sources, [wire.replace("outbound_.9000_._.e.b.svc.cluster.local", "-")]
        )
        == frozenset()
    )

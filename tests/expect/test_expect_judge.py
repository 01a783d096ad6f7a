"""One check an expectation: wrong is FAIL, unknown is ERROR, nothing is FAIL, and an exception has its day."""

import datetime

import pytest

from meshtls.expect import judge
from meshtls.expect.file import parse
from meshtls.expect.judge import SATISFIES, Answer
from meshtls.model.check import Status

TODAY = datetime.date(2026, 11, 26)
GOT = ("MTLS", "PLAINTEXT", "WORKS", "REFUSED", "BREAKS", "UNKNOWN")


class Told:
    """Answers as they are given."""

    def __init__(self, *answers):
        self.answers = answers

    def calls(self, call):
        return self.answers

    modes = calls

    def lacking(self, each):
        return "no workload is that"


def expected(must="MTLS", excepted=""):
    return parse(f"apiVersion: meshtls.dev/v1\nkind: Expectations\ncalls:\n- from: a/*\n  to: b/s\n  must: {must}\n  except: [{excepted}]\n", "e.yaml")


def answer(got, *clients, port="80"):
    return Answer(clients or ("Deployment/a/c",), "Service/b/s", port, got, ("why",))


def checks(told, *answers):
    return judge.checks(told, Told(*answers), TODAY)


HOLDS = {("MTLS", "MTLS"), ("PLAINTEXT", "PLAINTEXT"), ("WORKS", "MTLS"), ("WORKS", "PLAINTEXT"), ("WORKS", "WORKS"),
         ("REFUSED", "REFUSED"), ("BREAKS", "REFUSED"), ("BREAKS", "BREAKS")}  # fmt: skip


@pytest.mark.parametrize("must", SATISFIES)
@pytest.mark.parametrize("got", GOT)
def test_what_satisfies_what(must, got):
    (check,) = checks(expected(must), answer(got))

    assert check.status is (Status.PASS if (must, got) in HOLDS else Status.ERROR if got == "UNKNOWN" else Status.FAIL)
    assert check.status is not Status.FAIL or (check.findings[0].code, check.findings[0].file, check.findings[0].line) == ("MT801", "e.yaml", 4)


def test_one_call_that_is_wrong_fails_all_and_is_named():
    (check,) = checks(expected(), answer("MTLS"), answer("PLAINTEXT", "CronJob/a/x", "Deployment/a/y"), answer("UNKNOWN", "Deployment/a/z"))

    assert check.status is Status.FAIL and len(check.findings) == 1
    assert "CronJob/a/x, Deployment/a/y -> Service/b/s:80 is PLAINTEXT, must be MTLS" in check.findings[0].message
    assert "Deployment/a/z" in check.reason


def test_what_could_not_be_told_is_no_pass_and_says_why():
    (check,) = checks(expected(), answer("MTLS"), answer("UNKNOWN", "Deployment/a/z"))

    assert check.status is Status.ERROR and "Deployment/a/z -> Service/b/s:80: why" in check.reason


def test_an_expectation_that_means_nothing_fails():
    (check,) = checks(expected())

    assert check.status is Status.FAIL
    assert check.findings[0].code == "MT803" and "no workload is that" in check.findings[0].message


def test_an_exception_takes_out_what_it_covers_and_stays_in_sight():
    told = expected(excepted="{from: a/old, owner: team-a, reason: goes, until: 2026-11-26}")
    check, exceptions = checks(told, answer("MTLS"), answer("PLAINTEXT", "Deployment/a/old"))

    assert check.status is Status.PASS and exceptions.status is Status.PASS
    assert check.findings[0].accepted == "team-a until 2026-11-26: goes (e.yaml:7)"


def test_an_exception_covers_what_could_not_be_told():
    told = expected(excepted="{from: a/old, owner: team-a, until: 2027-01-01}")
    check, exceptions = checks(told, answer("UNKNOWN", "Deployment/a/old"), answer("MTLS"))

    assert check.status is exceptions.status is Status.PASS


def test_an_exception_that_ended_covers_nothing_any_more_and_says_so():
    told = expected(excepted="{from: a/old, owner: team-a, until: 2026-11-25}")
    check, exceptions = checks(told, answer("PLAINTEXT", "Deployment/a/old"))

    assert check.status is exceptions.status is Status.FAIL
    assert "the exception of team-a (e.yaml:7) ended on 2026-11-25" in check.findings[0].because
    assert (exceptions.findings[0].code, exceptions.findings[0].severity, exceptions.findings[0].line) == ("MT804", "warning", 7)


@pytest.mark.parametrize("got", ["MTLS", "PLAINTEXT"])
def test_an_exception_that_nothing_needs_is_told(got):
    """Whether it covers nothing, or only what is as expected."""
    told = expected(excepted="{from: a/old, owner: team-a, until: 2027-01-01}")
    check, exceptions = checks(told, answer("MTLS", "Deployment/a/old") if got == "MTLS" else answer("MTLS"))

    assert check.status is Status.PASS
    assert exceptions.status is Status.FAIL and "not needed" in exceptions.findings[0].message


def test_an_exception_for_one_port_leaves_the_others():
    told = expected(excepted="{port: 81, owner: team-a, until: 2027-01-01}")
    check, _ = checks(told, answer("PLAINTEXT", port="80"), answer("PLAINTEXT", port="81"))

    assert check.status is Status.FAIL
    assert [(f.message.split(" is ")[0][-3:], bool(f.accepted)) for f in check.findings] == [(":80", False), (":81", True)]


def test_where_nothing_could_be_looked_at_no_expectation_passes():
    found = judge.unknown(expected(), "pods could not be read")

    assert [(c.status, c.reason) for c in found] == [(Status.ERROR, "pods could not be read")]


def test_clients_that_are_wrong_for_different_reasons_are_told_apart():
    one, two = answer("PLAINTEXT", "Deployment/a/x"), Answer(("Deployment/a/y",), "Service/b/s", "80", "PLAINTEXT", ("another",))
    (check,) = checks(expected(), one, two)

    assert [(f.because, "a/x" in f.message, "a/y" in f.message) for f in check.findings] == [(("why",), True, False), (("another",), False, True)]


def test_what_is_outside_of_the_question_is_counted_and_alone_it_is_no_answer():
    told = expected(excepted="{from: a/old, owner: team-a, until: 2027-01-01}")
    check, exceptions = checks(told, answer("MTLS"), answer("OUTSIDE", "Deployment/a/x", "Deployment/a/y"))
    (alone,) = checks(expected(), answer("OUTSIDE"))

    assert (check.status, check.reason) == (Status.PASS, "looked at: 1; outside of -n: 2")
    assert exceptions.status is Status.PASS, "whether it is needed was not looked at"
    assert alone.status is Status.SKIP

"""What an agent does not say was not measured, and what it says is bounded."""

import json

from hypothesis import given
from hypothesis import strategies as st
from world import line

from meshtls.probe.case import Outcome
from meshtls.probe.read import Reader

START = json.dumps({"schema": "meshtls.dev/probe-result/v1", "start": True, "agent": "a", "cases": 2})


def done(count, **more):
    return json.dumps(
        {"schema": "meshtls.dev/probe-result/v1", "done": True, "count": count, "cases": 2, "seconds": 1.5, **more}
    )


def reading(*lines, expected=("c0", "c1"), why=""):
    reader = Reader(expected)
    for text in lines:
        reader.take(text if isinstance(text, str) else json.dumps(text))
    return reader.reading(why)


def test_all_answers_and_the_count_make_a_complete_reading():
    got = reading(START, line("c0", "REFUSED"), line("c1", "PLAINTEXT"), done(2))

    assert (got.complete, got.problem, got.foreign, got.seconds) == (True, "", 0, 1.5)
    assert {case: seen.outcome for case, seen in got.observations.items()} == {
        "c0": Outcome.REFUSED,
        "c1": Outcome.PLAINTEXT,
    }


def test_a_log_that_ends_early_leaves_the_rest_not_run():
    got = reading(START, line("c0", "REFUSED"))

    assert not got.complete
    assert (got.observations["c1"].outcome, got.observations["c1"].detail) == (
        Outcome.NOT_RUN,
        "the agent's log ended early",
    )


def test_silence_is_not_run():
    assert reading().observations["c0"].detail == "the agent said nothing"


def test_a_count_that_does_not_match_is_no_complete_reading():
    got = reading(START, line("c0", "REFUSED"), done(2))

    assert not got.complete
    assert got.observations["c1"].detail == "the agent answered 2 cases, 1 answers were read"


def test_a_stopped_agent_is_told():
    assert reading(START, done(0, stopped=True)).problem == "the agent was stopped"


def test_foreign_lines_are_counted_and_nothing_else():
    got = reading(START, "warning: hello", line("c9", "MTLS"), line("c0", "BOGUS"), '{"schema":"other","id":"c0","outcome":"MTLS"}',
                  "[" * 5000, line("c0", "REFUSED"), line("c0", "MTLS"), line("c1", "REFUSED"), done(2))  # fmt: skip

    assert got.foreign == 6
    assert got.observations["c0"].outcome is Outcome.REFUSED
    assert got.complete


def test_text_of_a_line_is_bounded_and_printable():
    seen = reading(START, line("c0", "REFUSED", detail="\x1b[2J" + "x" * 5000)).observations["c0"]

    assert len(seen.detail) == 400
    assert seen.detail.isprintable()


@given(st.lists(st.text() | st.binary().map(lambda b: b.decode("latin-1")) | st.just(json.dumps(line("c0", "MTLS")))))
def test_no_line_can_break_the_reader_or_make_it_complete(lines):
    got = reading(*lines)

    assert not got.complete
    assert set(got.observations) == {"c0", "c1"}

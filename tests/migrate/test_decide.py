"""The state machine is whole: every state has an answer for everything that an object can be, and unknown never advances."""

import itertools
import pathlib

import msgspec
import pytest

from meshtls.migrate.decide import BACK, FORWARD, WATCHED, Do, current, decide, diagram
from meshtls.migrate.gate import Verdict, verdict
from meshtls.migrate.journal import Entry, Going, Journal, Live, Outcome, State
from meshtls.migrate.plan import Stage
from meshtls.model.check import Check, Status
from tests.migrate.conftest import BILLING, HOLDS, PASSED

FIRST = Stage(id="canary", policy="c", create=True, mode="STRICT", temporary=True)
LAST = Stage(id="namespace", policy="default", create=True, mode="STRICT")


def journal(*states: State, going: Going = Going.FORWARD) -> Journal:
    entries = tuple(Entry(stage=stage, state=state) for stage, state in zip((FIRST, LAST), states, strict=True))
    return Journal(run="r", namespace="shop", started="t", who="w", was="PERMISSIVE", soak_s=1, going=going, entries=entries)


def other(status: Status) -> Check:
    return msgspec.structs.replace(PASSED, status=status, reason="why")


@pytest.mark.parametrize(("state", "live"), list(itertools.product(State, Live)))
def test_every_state_has_an_answer_for_every_object(state: State, live: Live) -> None:
    assert (state is State.UNDONE) != ((state, live) in FORWARD)
    assert (state in (State.PLANNED, State.UNDONE)) != ((state, live) in BACK)


@pytest.mark.parametrize("going", Going)
def test_a_foreign_object_is_never_written(going: Going) -> None:
    table = FORWARD if going is Going.FORWARD else BACK
    for (_, live), (do, why) in table.items():
        if live is Live.FOREIGN:
            assert do in (Do.TURN, Do.STUCK, Do.LEAVE)
            assert why
        if do in (Do.APPLY, Do.BEGIN):
            assert live is Live.BEFORE
        if do is Do.UNDO:
            assert live is Live.WANTED


@pytest.mark.parametrize("found", Verdict)
def test_only_a_gate_that_holds_advances(found: Verdict) -> None:
    step = decide(journal(State.APPLIED, State.PLANNED), Live.WANTED, found, "because")
    assert (step.do is Do.PASS) == (found is Verdict.HOLDS)
    assert WATCHED.keys() == set(Verdict)


@pytest.mark.parametrize(("change", "expected"), [
    ({}, Verdict.HOLDS),
    ({"refused": (BILLING,)}, Verdict.BROKEN),
    ({"refused": (BILLING,), "deaf": ("x: y",), "probes": ()}, Verdict.BROKEN),
    ({"accepted": (BILLING,)}, Verdict.HOLDS),
    ({"unready": ("cart-1",)}, Verdict.BROKEN),
    ({"locked": "no"}, Verdict.BROKEN),
    ({"proxies": 0}, Verdict.UNKNOWN),
    ({"deaf": ("x: y",)}, Verdict.UNKNOWN),
    ({"no_probes": "x"}, Verdict.UNKNOWN),
    ({"probes": ()}, Verdict.UNKNOWN),
    ({"probes": (other(Status.SKIP),)}, Verdict.UNKNOWN),
    ({"probes": (PASSED, other(Status.ERROR))}, Verdict.UNKNOWN),
    ({"probes": (PASSED, other(Status.FAIL))}, Verdict.BROKEN),
    ({"soaked_s": 59.9}, Verdict.UNKNOWN),
])  # fmt: skip
def test_no_data_holds_a_gate_and_a_refusal_wins(change: dict, expected: Verdict) -> None:
    found, because = verdict(msgspec.structs.replace(HOLDS, **change))
    assert found is expected
    assert because


def test_the_way_back_goes_from_the_last_to_the_first_and_skips_what_was_left() -> None:
    whole = journal(State.PASSED, State.APPLIED, going=Going.BACK)
    assert current(whole).stage is LAST
    left = whole.update("namespace", left=True)
    assert current(left).stage is FIRST
    over = left.update("canary", state=State.UNDONE)
    assert current(over) is None
    step = decide(over, None)
    assert step.do is Do.STUCK
    assert "shop/default" in step.reason
    assert decide(over.update("namespace", left=False, state=State.UNDONE), None).outcome is Outcome.ROLLED_BACK


def test_the_picture_in_the_docs_is_drawn_from_the_tables() -> None:
    drawn = diagram()
    assert drawn.count("-->") == 1 + len(FORWARD) + len(WATCHED) - 1 + 1 + len(BACK) + 4
    assert drawn in (pathlib.Path(__file__).parents[2] / "docs" / "migrate.md").read_text()

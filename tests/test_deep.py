"""Nested without an end, what others send is not an answer, and ends in no traceback."""

from collections.abc import Callable

import pytest

from meshtls.cluster import answers, streams
from meshtls.errors import MeshtlsError
from meshtls.guard import regression
from meshtls.guard.admission import EXCEPTIONS
from meshtls.migrate import journal, register
from meshtls.observe import accesslog, metrics
from meshtls.rehearse import stand

DEEP = '{"x": ' + "[" * 200_000


@pytest.mark.parametrize("read", [metrics.decode, lambda body: stand._read(body.decode(), "ConfigMap/istio-system/istio"), lambda body: streams._event(body.decode()), lambda body: journal.decode(body.decode())])
def test_a_reader_that_must_have_an_answer_says_that_it_has_none(read: Callable[[bytes], object]) -> None:
    with pytest.raises(MeshtlsError):
        read(DEEP.encode())


def test_a_reader_of_lines_passes_it_over_and_a_list_of_runs_says_that_one_is_unreadable() -> None:
    assert answers.status_of(DEEP.encode()) == answers.Status()
    assert accesslog.parse(DEEP) is None and not accesslog.is_access(DEEP)
    assert register.standing("shop", "shop", DEEP).outcome == register.UNREADABLE


def test_exceptions_that_cannot_be_read_are_none() -> None:
    assert regression._exceptions({EXCEPTIONS: "[" * 200_000}) == []

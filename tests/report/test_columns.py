"""Tables: one line a row where nobody minds, folded and whole where a terminal is narrow."""

import itertools

import pytest

from meshtls.report.columns import columns

HEAD = ("VERDICT", "SERVER", "CLIENTS", "BECAUSE")
ROWS = (
    ("BREAKS", "Service/payments/gateway:80", "CronJob/legacy/nightly-export and 2 more", "PeerAuthentication/payments/default spec.mtls.mode: STRICT: plaintext is refused"),
    ("WORKS", "Service/shop/cart:80", "Deployment/shop/frontend", ""),
)
BELOW = ("BECAUSE", "CLIENTS")


def test_without_a_width_a_row_is_one_line():
    lines = columns(ROWS, HEAD, below=BELOW).splitlines()

    assert len(lines) == 1 + len(ROWS)
    assert all(cell in lines[1] for cell in ROWS[0])


def test_what_fits_is_not_folded():
    assert columns(ROWS, HEAD, width=300, below=BELOW) == columns(ROWS, HEAD)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_on_a_terminal_lines_fit_and_no_word_is_lost(width):
    lines = columns(ROWS, HEAD, width=width, below=BELOW).splitlines()

    longest = max(len(word) for row in ROWS for cell in row for word in cell.split())
    assert all(len(line) <= max(width, longest + 4) for line in lines)
    assert " ".join(lines).split() == list(itertools.chain.from_iterable(cell.split() for row in (HEAD, *ROWS) for cell in row))


def test_columns_leave_their_line_one_by_one_and_the_head_goes_with_them():
    once, twice = (columns(ROWS, HEAD, width=width, below=BELOW).splitlines() for width in (80, 60))

    assert once[:2] == ["VERDICT  SERVER                       CLIENTS", "    BECAUSE"]
    assert twice[:3] == ["VERDICT  SERVER", "    CLIENTS", "    BECAUSE"]
    assert once[-1].split() == ["WORKS", "Service/shop/cart:80", "Deployment/shop/frontend"], "an empty cell has no line"


def test_foreign_text_cannot_break_out_of_its_row():
    assert "\x1b" not in columns([("a\x1b[2J\nb", "", "", "")], HEAD, width=40, below=BELOW)

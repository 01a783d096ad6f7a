"""What holds a migration before anything is changed: what was counted counts beside what was logged, and no answer is none."""

from pathlib import Path

import pytest

from meshtls import sources
from meshtls.migrate import baseline
from meshtls.migrate.baseline import Facts, Waiver
from meshtls.migrate.plan import plan
from meshtls.model.check import Check, Finding, Severity, Status

SHOP = Path(__file__).parents[2] / "examples" / "shop"
BAD = Finding(code="MT601", severity=Severity.ERROR, subject="Deployment/legacy/billing", message="sends plaintext")
LOGGED = Check(id="observe/a", title="plaintext to a", status=Status.PASS)


def check(status: Status, *findings: Finding, name: str = "a") -> Check:
    return Check(id=f"metrics/{name}", title="plaintext, counted", status=status, reason="because", findings=findings)


NOTHING = Waiver()


def held(*counted: Check, waiver: Waiver = NOTHING) -> list[str]:
    mesh = sources.load([str(SHOP)])
    found = baseline.checks(mesh, plan(mesh, "payments"), Facts(observed=(LOGGED,), counted=counted), waiver)
    return [c.id for c in baseline.holding(found, waiver) if "metrics" in c.id or c.id == "baseline/counted"]


@pytest.mark.parametrize(("counted", "holds"), [
    ((), []),
    ((check(Status.PASS),), []),
    ((check(Status.PASS), check(Status.SKIP, name="b")), []),
    ((check(Status.SKIP),), ["baseline/counted"]),
    ((check(Status.PASS), check(Status.ERROR, name="b")), ["metrics/b"]),
    ((check(Status.FAIL, BAD),), ["metrics/a"]),
])  # fmt: skip
def test_plaintext_no_answer_and_no_arrival_at_all_hold(counted: tuple[Check, ...], holds: list[str]) -> None:
    assert held(*counted) == holds


def test_a_client_that_was_accepted_by_name_holds_nothing_and_another_does() -> None:
    other = Finding(code="MT601", severity=Severity.ERROR, subject="Deployment/payments/gateway", message="a client without a name sends plaintext")

    assert held(check(Status.FAIL, BAD), waiver=Waiver(accepted=("legacy/billing",))) == []
    assert held(check(Status.FAIL, BAD, other), waiver=Waiver(accepted=("legacy/billing",))) == ["metrics/a"]


def test_force_goes_past_what_was_counted() -> None:
    assert held(check(Status.FAIL, BAD), check(Status.ERROR, name="b"), waiver=Waiver(force=True)) == []

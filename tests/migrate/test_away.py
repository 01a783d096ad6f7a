"""A server that goes away in the middle: said at once, waited for in bounded time, and what is left then is told."""

from collections.abc import Callable

import pytest

from meshtls.errors import GateError, ServerFault
from meshtls.migrate.journal import Outcome, State
from meshtls.migrate.run import BACK_S, FORWARD_S, LOCKED_S
from meshtls.migrate.store import KEY
from tests.migrate.conftest import BROKEN, CANARY, HOLDS, OF_POLICIES, Eyes, World, wide

# what one request may wait inside the client, and a pause
SLACK_S = 40.0


def away(world: World, begins: Callable[[], bool], for_s: float = float("inf")) -> None:
    """From that moment on the server answers nothing, for so long."""
    began: list[float] = []

    def refuse(method: str, path: str, dry_run: bool) -> int:
        if not began and begins():
            began.append(sum(world.waited))
        return 503 if began and sum(world.waited) - began[0] < for_s else 0

    world.api.refuse = refuse


def said(world: World, text: str) -> Callable[[], bool]:
    return lambda: any(text in line for line in world.said)


def test_a_restart_of_the_server_during_the_soak_does_not_end_the_run(world: World) -> None:
    stage = wide(world)
    away(world, said(world, "stage canary: watching"), for_s=45)
    journal = world.start((CANARY, stage))

    assert journal.outcome is Outcome.DONE
    assert any("trying again" in line for line in world.said)


def test_a_server_that_is_gone_for_good_ends_the_run_in_bounded_time_with_the_journals_state_and_the_command(world: World) -> None:
    stage = wide(world)
    away(world, said(world, "stage namespace: watching"))
    with pytest.raises(GateError) as caught:
        world.start((CANARY, stage))

    assert caught.value.exit_code == 4
    assert sum(world.waited) < FORWARD_S + BACK_S + LOCKED_S + 2 * SLACK_S
    assert "not restored: PeerAuthentication meshtls-canary-cart, default in shop" in caught.value.message
    assert "the journal, ConfigMap shop/meshtls-journal-shop, says: going forward, canary PASSED, namespace APPLIED" in caught.value.message
    assert "meshtls migrate rollback -n shop" in caught.value.hint


def test_what_was_left_by_a_server_that_was_gone_is_taken_back_by_another_process(world: World) -> None:
    stage = wide(world)
    before = world.api.specs()
    away(world, said(world, "stage namespace: watching"))
    with pytest.raises(GateError):
        world.start((CANARY, stage))
    world.api.refuse = lambda method, path, dry_run: 0
    journal = world.resume(lambda journal: _back(journal))

    assert journal is not None and journal.outcome is Outcome.ROLLED_BACK
    assert world.api.specs() == before


def _back(journal):
    from meshtls.migrate.journal import back

    return back(journal, "asked for")


def test_the_way_back_outlasts_a_server_that_is_away_for_a_minute(world: World) -> None:
    stage = wide(world)
    before = world.api.specs()
    away(world, said(world, "BROKEN"), for_s=60)
    journal = world.start((CANARY, stage), Eyes(namespace=BROKEN))

    assert journal.outcome is Outcome.ROLLED_BACK
    assert world.api.specs() == before


def test_a_validator_that_restarts_at_the_end_of_a_soak_does_not_break_the_gate(world: World) -> None:
    """istiod validates updates: while it restarts, each dry run of the rollback is refused with 500."""
    stage, eyes, began = wide(world), Eyes(), []
    eyes.seeing = lambda stage: began.append(sum(world.waited)) if stage == "namespace" else None
    world.api.refuse = lambda method, path, dry_run: (
        500 if began and sum(world.waited) - began[0] < LOCKED_S / 2 and method == "PUT" and OF_POLICIES in path else 0
    )
    assert world.start((CANARY, stage), eyes).outcome is Outcome.DONE


def test_a_journal_whose_writing_got_no_answer_is_no_strangers(world: World) -> None:
    """The write is served, its answer and all answers for a minute after it are lost: the run finds its own writing, and goes on."""
    stage, answer, cut = wide(world), world.api._answer, []

    def flaky(request):
        written = request.method == "PUT" and "/configmaps/" in request.url.path
        if written and not cut and b"APPLIED" in request.content:
            answer(request)
            cut.append(sum(world.waited))
        if cut and sum(world.waited) - cut[0] < 60:
            world.api.refuse = lambda method, path, dry_run: 503
        else:
            world.api.refuse = lambda method, path, dry_run: 0
        return answer(request)

    world.api._answer = flaky
    journal = world.start((stage,))
    assert journal.outcome is Outcome.DONE


@pytest.mark.parametrize("told", [ServerFault("list pods: 503"), HOLDS])
def test_a_witness_that_loses_the_server_for_a_moment_is_asked_again(world: World, told: object) -> None:
    stage, answers = wide(world), [told, HOLDS]

    class Forgetful(Eyes):
        def gather(self, *args):
            self.told["namespace"] = answers.pop(0) if len(answers) > 1 else answers[0]
            return super().gather(*args)

    assert world.start((stage,), Forgetful()).outcome is Outcome.DONE


def test_the_journal_says_the_truth_at_every_moment_of_an_outage(world: World) -> None:
    """Whatever is in force is in the journal as begun: nothing is changed by a run whose journal cannot be written."""
    stage = wide(world)
    world.api.refuse = lambda method, path, dry_run: 503 if method == "PUT" and "/configmaps/" in path else 0
    with pytest.raises(GateError):
        world.start((CANARY, stage))
    assert "STRICT" not in {o["spec"]["mtls"]["mode"] for o in world.api.policies().values()}
    held = next(o for p, o in world.api.objects.items() if "/configmaps/" in p)
    assert State.INTENT not in held["data"][KEY]

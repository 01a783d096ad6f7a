"""What somebody else does to the namespace's policies is seen while a stage is watched, and no state is a dead end."""

from typing import Any

import pytest

from meshtls.migrate.journal import Journal, Outcome, again, back, begin, disturbed
from meshtls.migrate.plan import Plan
from meshtls.migrate.run import Runner
from meshtls.migrate.store import Taken
from tests.migrate.conftest import CANARY, OF_POLICIES, PERMISSIVE_SPEC, STRICT, Eyes, World, edit, policy, wide

THEIRS = {"selector": {"matchLabels": {"app": "cart"}}, "mtls": {"mode": "PERMISSIVE"}}


class Patient(Eyes):
    """Soaks for ever, as long as its tick lets it."""

    def __init__(self, world: World, then: Any) -> None:
        super().__init__()
        self.world, self.then, self.ticks = world, then, 0

    def gather(self, stage, soak_s, accepted, tick):
        tick()
        self.ticks = 0
        self.then(stage.id)
        while self.ticks < 100:
            self.ticks += 1
            self.world.waited.append(1.0)
            tick()
        return super().gather(stage, soak_s, accepted, tick)


def after(world: World, stage: str, what: Any) -> Patient:
    return Patient(world, lambda at: what() if at == stage else None)


def remove(world: World, name: str) -> None:
    world.api.objects.pop(next(p for p in world.api.objects if OF_POLICIES in p and p.endswith(f"/{name}")))


@pytest.mark.parametrize("what", ["came", "was changed", "went"])
def test_a_policy_of_somebody_else_ends_the_soak_at_once_and_the_run_goes_back(world: World, what: str) -> None:
    stage = wide(world)
    if what != "came":
        world.api.put(policy("theirs", THEIRS | STRICT))
    act = (lambda: remove(world, "theirs")) if what == "went" else (lambda: world.api.put(policy("theirs", THEIRS)))
    eyes = after(world, "canary", act)
    journal = world.start((CANARY, stage), eyes)

    assert eyes.ticks < 5
    assert journal.outcome is Outcome.ROLLED_BACK
    assert f"PeerAuthentication shop/theirs {what} meanwhile" in journal.reason
    left = {name: o["spec"] for name, o in world.api.policies().items()}
    assert left == {"default": PERMISSIVE_SPEC} | ({} if what == "went" else {"theirs": THEIRS})


def test_an_edit_of_the_canarys_policy_is_seen_while_the_namespace_soaks(world: World) -> None:
    eyes = after(world, "namespace", lambda: edit(world, "meshtls-canary-cart", THEIRS))
    journal = world.start((CANARY, wide(world)), eyes)

    assert eyes.ticks < 5
    assert journal.outcome is Outcome.STUCK
    assert world.api.policies()["meshtls-canary-cart"]["spec"] == THEIRS
    assert world.api.policies()["default"]["spec"] == PERMISSIVE_SPEC


def test_an_edit_of_ours_ends_the_soak_at_once(world: World) -> None:
    eyes = after(world, "canary", lambda: edit(world, "meshtls-canary-cart", THEIRS))
    journal = world.start((CANARY, wide(world)), eyes)

    assert eyes.ticks < 5
    assert journal.outcome is Outcome.STUCK
    assert any("somebody changed it" in line for line in world.said)


def test_an_edit_in_the_last_moment_of_a_soak_is_seen_before_the_stage_passes(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    gather = eyes.gather

    def late(*args):
        found = gather(*args)
        if args[0].id == "namespace":
            edit(world, "meshtls-canary-cart", THEIRS)
        return found

    eyes.gather = late
    journal = world.start((CANARY, stage), eyes)
    assert journal.outcome is Outcome.STUCK
    assert world.api.policies()["default"]["spec"] == PERMISSIVE_SPEC


def test_what_changes_between_two_stages_is_seen_too(world: World) -> None:
    """The bystanders are those of the run's beginning, not of each soak's."""
    stage = wide(world)
    eyes = Eyes()
    listen = eyes.listen
    eyes.listen = lambda one: (world.api.put(policy("theirs", THEIRS)) if one.id == "namespace" else None, listen(one))[1]
    journal = world.start((CANARY, stage), eyes)
    assert journal.outcome is Outcome.ROLLED_BACK
    assert "theirs came meanwhile" in journal.reason


def test_a_journal_of_before_says_nothing_about_others() -> None:
    journal = Journal(run="r", namespace="shop", started="", who="", was="PERMISSIVE", soak_s=1)
    assert disturbed(journal, {"theirs": policy("theirs", THEIRS)}) == ""


def stuck(world: World) -> None:
    """A run whose canary somebody else edited: stuck on its way forward."""
    journal = world.start((CANARY, wide(world)), after(world, "canary", lambda: edit(world, "meshtls-canary-cart", THEIRS)))
    assert journal.outcome is Outcome.STUCK


def test_a_stuck_run_goes_on_once_the_object_is_put_right(world: World) -> None:
    stuck(world)
    assert world.resume(again).outcome is Outcome.STUCK
    edit(world, "meshtls-canary-cart", {"selector": {"matchLabels": {"app": "cart"}}, **STRICT})
    assert world.resume(again).outcome is Outcome.DONE
    assert {name: o["spec"] for name, o in world.api.policies().items()} == {"default": STRICT}


def test_a_stuck_run_can_be_closed_leaving_what_others_changed(world: World) -> None:
    stuck(world)
    assert world.resume(lambda journal: back(journal, "asked for")).outcome is Outcome.STUCK
    journal = world.resume(lambda journal: back(journal, "asked for", leave=True))

    assert journal.outcome is Outcome.LEFT
    assert "meshtls-canary-cart" in journal.reason and "left alone" in journal.reason
    assert {name: o["spec"] for name, o in world.api.policies().items()} == {"default": PERMISSIVE_SPEC, "meshtls-canary-cart": THEIRS}


@pytest.mark.parametrize("name", ["default", "meshtls-canary-cart"])
def test_a_policy_that_somebody_deleted_is_no_dead_end(world: World, name: str) -> None:
    world.start((CANARY, wide(world)), after(world, "namespace", lambda: remove(world, name)))
    journal = world.resume(lambda journal: back(journal, "asked for", leave=True))
    assert journal.outcome in (Outcome.LEFT, Outcome.ROLLED_BACK)
    assert "meshtls-canary-cart" not in world.api.policies()


def test_a_run_whose_lease_another_has_taken_touches_nothing_any_more(world: World) -> None:
    """A laptop that slept: somebody else went on meanwhile. What is in force stays, and the journal is theirs."""
    stage, client = wide(world), world.client()
    store = world.store(client)
    journal = begin(Plan(namespace="shop", was="PERMISSIVE", stages=(CANARY, stage)), run="r1", now="t", who="ann", soak_s=60, forced=False, accepted=())
    store.save(journal)
    eyes, asleep = Eyes(), []
    eyes.seeing = asleep.append

    def tick() -> None:
        if asleep:
            raise Taken("somebody else has taken over this migration")

    runner = Runner(client, store, eyes, say=world.said.append, now=lambda: "t", tick=tick, pause=world.waited.append)
    with pytest.raises(Taken):
        runner.carry(journal)
    written = [entry for entry in world.api.log if entry[0] in ("PUT", "POST", "DELETE") and OF_POLICIES in entry[1] and not entry[2]]
    assert len(written) == 1, "only what came before"
    assert eyes.settled
    assert world.resume().outcome is Outcome.DONE

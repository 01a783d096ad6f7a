"""Ctrl-C, SIGTERM and kill -9 at every request of a run: nothing is half done, and from every state both verbs go on.

SIGTERM and a hang-up are Ctrl-C to the process (see cli.output); kill -9 alone is in test_crash.
"""

import pytest

from meshtls.migrate.journal import Outcome, again, back
from tests.migrate.conftest import Died, Eyes, World
from tests.migrate.test_crash import SCENES, Scene, ended, staged


def interrupted(scene: Scene, number: int, served: bool) -> tuple[World, dict]:
    """A world in which a run met a Ctrl-C at that request, and what was there before."""
    world, stages = staged(scene)
    before = world.api.specs()
    world.api.interrupted_at, world.api.served = number, served
    with pytest.raises((KeyboardInterrupt, Died)):
        world.start(stages, scene.eyes())
    return world, before


def length(scene: Scene) -> int:
    world, stages = staged(scene)
    world.start(stages, scene.eyes())
    return world.api.count


@pytest.mark.parametrize("served", [False, True], ids=["not served", "answer lost"])
@pytest.mark.parametrize("name", SCENES)
def test_a_ctrl_c_at_any_request_restores_everything_and_a_new_run_can_begin(name: str, served: bool) -> None:
    scene, first = SCENES[name], []
    for number in range(1, length(scene) + 1):
        world, before = interrupted(scene, number, served)
        journal = world.store().load()
        if journal is not None and journal.outcome is Outcome.DONE:
            # the interrupt came with the answer to the very last writing
            ended(scene, world, before)
            continue
        assert world.api.specs() == before, f"request {number}"
        first.append(journal.outcome if journal else None)
        assert journal is None or journal.outcome in (Outcome.ROLLED_BACK, Outcome.NONE), f"request {number}"
        # what `rollback` from elsewhere does with it
        journal = world.resume(lambda journal: back(journal, "asked for"))
        assert journal is None or journal.outcome is Outcome.ROLLED_BACK
        assert world.api.specs() == before
    assert Outcome.ROLLED_BACK in first


@pytest.mark.parametrize("verb", ["apply", "rollback"])
@pytest.mark.parametrize("name", SCENES)
def test_a_kill_at_any_request_after_a_ctrl_c_leaves_what_either_verb_goes_on_with(name: str, verb: str) -> None:
    """The second signal, which ends the process at once, at each request of the way back from each of some Ctrl-Cs."""
    scene = SCENES[name]
    total = length(scene)
    for number in range(3, total, 5):
        world, stages = staged(scene)
        world.api.interrupted_at = number
        with pytest.raises(KeyboardInterrupt):
            world.start(stages, scene.eyes())
        for second in range(number + 1, world.api.count + 1):
            died, stages = staged(scene)
            before = died.api.specs()
            died.api.interrupted_at, died.api.dies_at, died.api.served = number, second, second % 2 == 0
            with pytest.raises((KeyboardInterrupt, Died)):
                died.start(stages, scene.eyes())
            died.api.dies_at = died.api.interrupted_at = 0
            change = again if verb == "apply" else (lambda journal: back(journal, "asked for"))
            journal = died.resume(change, scene.eyes())
            if journal is None:
                assert died.api.specs() == before
                continue
            assert journal.outcome in ((Outcome.DONE, Outcome.ROLLED_BACK) if verb == "apply" else (Outcome.ROLLED_BACK,))
            if journal.outcome is Outcome.ROLLED_BACK:
                assert died.api.specs() == before, f"request {number}, then {second}"
            else:
                ended(scene, died, before)


def test_a_second_ctrl_c_while_the_way_back_begins_does_not_stop_it(world: World) -> None:
    from tests.migrate.conftest import CANARY, wide

    stage, eyes = wide(world), Eyes(namespace=KeyboardInterrupt())
    before, answer, cut = world.api.specs(), world.api._answer, []

    def once(request):
        if request.method == "GET" and "/configmaps/" in request.url.path and not cut:
            cut.append(1)
            raise KeyboardInterrupt
        return answer(request)

    eyes.seeing = lambda at: setattr(world.api, "_answer", once) if at == "namespace" else None
    with pytest.raises(KeyboardInterrupt):
        world.start((CANARY, stage), eyes)
    assert cut and world.api.specs() == before

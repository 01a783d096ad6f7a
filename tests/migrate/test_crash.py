"""A run that dies at any request is finished, or taken back, by another process: same end, or Stuck with a reason."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from meshtls.migrate.journal import Journal, Outcome, back
from meshtls.migrate.plan import Stage
from tests.migrate.conftest import BROKEN, CANARY, STRICT, Died, Eyes, World, policy


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is there before, what is planned, and the spec of `default` when it is done (None: as it was)."""

    before: dict[str, dict[str, Any]]
    stages: Callable[[dict[str, str]], tuple[Stage, ...]]
    done: dict[str, Any] | None
    eyes: Callable[[], Eyes] = Eyes


def absent(uids: dict[str, str]) -> tuple[Stage, ...]:
    return (CANARY, Stage(id="namespace", policy="default", create=True, mode="STRICT"))


def patched(uids: dict[str, str]) -> tuple[Stage, ...]:
    return (CANARY, Stage(id="namespace", policy="default", create=False, mode="STRICT", uid=uids["default"], found="PERMISSIVE"))


def disabled(uids: dict[str, str]) -> tuple[Stage, ...]:
    return (
        Stage(id="permissive", policy="default", create=False, mode="PERMISSIVE", uid=uids["default"], found="DISABLE"), CANARY,
        Stage(id="namespace", policy="default", create=False, mode="STRICT", uid=uids["default"], found="PERMISSIVE"),
    )  # fmt: skip


def own(uids: dict[str, str]) -> tuple[Stage, ...]:
    return (
        Stage(id="canary", policy="for-cart", create=False, mode="STRICT", uid=uids["for-cart"], found="PERMISSIVE",
              selector={"app": "cart"}, temporary=True),
        Stage(id="namespace", policy="default", create=True, mode="STRICT"),
    )  # fmt: skip


PORTS = {"selector": {"matchLabels": {"app": "cart"}}, "mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"9000": {"mode": "DISABLE"}}}
SCENES = {
    "absent": Scene({}, absent, STRICT),
    "patched": Scene({"default": {"mtls": {"mode": "PERMISSIVE"}}}, patched, STRICT),
    "disabled": Scene({"default": {"mtls": {"mode": "DISABLE"}}}, disabled, STRICT),
    "a workload's own policy is the canary": Scene({"for-cart": PORTS}, own, STRICT),
    "rolled back by a refusal": Scene({"default": {"mtls": {"mode": "PERMISSIVE"}}}, patched, None, lambda: Eyes(namespace=BROKEN)),
}


def staged(scene: Scene) -> tuple[World, tuple[Stage, ...]]:
    world = World()
    uids = {name: world.api.put(policy(name, spec))["metadata"]["uid"] for name, spec in scene.before.items()}
    return world, scene.stages(uids)


def crashes(scene: Scene, served: bool) -> list[tuple[int, World, dict[str, tuple[str, Any]]]]:
    """A world for each request of the run, in which the process died at that request; with what was there before."""
    world, stages = staged(scene)
    world.start(stages, scene.eyes())
    found = []
    for number in range(1, world.api.count + 1):
        died, stages = staged(scene)
        before = died.api.specs()
        died.api.dies_at, died.api.served = number, served
        with pytest.raises(Died):
            died.start(stages, scene.eyes())
        died.api.dies_at = 0
        found.append((number, died, before))
    assert len(found) > 10
    return found


def ended(scene: Scene, world: World, before: dict[str, tuple[str, Any]]) -> None:
    """Every object that was there is the same object still, ours are gone, and `default` says what it should."""
    after = world.api.specs()
    if scene.done is None:
        assert after == before
        return
    assert after["default"][1] == scene.done
    assert {name: what for name, what in after.items() if name != "default"} == {n: w for n, w in before.items() if n != "default"}
    if "default" in before:
        assert after["default"][0] == before["default"][0], "patched in place, not made anew"


@pytest.mark.parametrize("served", [False, True], ids=["not served", "answer lost"])
@pytest.mark.parametrize("name", SCENES)
def test_a_run_that_died_anywhere_is_finished_by_another_process(name: str, served: bool) -> None:
    scene = SCENES[name]
    for number, world, before in crashes(scene, served):
        journal = world.resume(eyes=scene.eyes())
        if journal is None:
            assert world.api.specs() == before, f"request {number}: changed without a journal"
            continue
        assert journal.outcome is (Outcome.DONE if scene.done else Outcome.ROLLED_BACK), f"request {number}: {journal.reason}"
        ended(scene, world, before)


@pytest.mark.parametrize("served", [False, True], ids=["not served", "answer lost"])
@pytest.mark.parametrize("name", SCENES)
def test_a_run_that_died_anywhere_is_taken_back_by_another_process(name: str, served: bool) -> None:
    scene = SCENES[name]
    for number, world, before in crashes(scene, served):
        journal = world.resume(_asked_back)
        assert journal is None or journal.outcome is Outcome.ROLLED_BACK, f"request {number}: {journal and journal.reason}"
        assert world.api.specs() == before, f"request {number}"


def _asked_back(journal: Journal) -> Journal:
    return back(journal, "asked for")


@pytest.mark.parametrize("name", SCENES)
def test_a_way_back_that_died_anywhere_ends_all_the_same(name: str) -> None:
    scene = SCENES[name]
    world, stages = staged(scene)
    world.start(stages, scene.eyes())
    first = world.api.count
    world.resume(_asked_back)
    for number in range(first + 1, world.api.count + 1):
        died, stages = staged(scene)
        before = died.api.specs()
        died.start(stages, scene.eyes())
        died.api.dies_at, died.api.served = number, number % 2 == 0
        with pytest.raises(Died):
            died.resume(_asked_back)
        died.api.dies_at = 0
        journal = died.resume(_asked_back)
        assert journal is not None and journal.outcome is Outcome.ROLLED_BACK
        assert died.api.specs() == before, f"request {number}"

"""What a run does when the world is against it: refusals, strangers, interrupts, a server that fails."""

import json
from typing import Any

import msgspec
import pytest

from meshtls.errors import DeadlineError, GateError, Unreachable
from meshtls.migrate.gate import Evidence
from meshtls.migrate.journal import Journal, Live, Outcome, State, back, compare, untouched
from meshtls.migrate.outcome import outcome_check
from meshtls.migrate.run import BACK_S, LOCKED_S
from meshtls.migrate.store import Taken
from meshtls.model.check import Status
from tests.migrate.conftest import BROKEN, CANARY, HOLDS, NAMESPACE, OF_POLICIES, PASSED, STRICT, UNKNOWN, Eyes, World, edit, policy, wide


def test_before_every_change_its_before_image_is_in_the_cluster(world: World) -> None:
    stage, known = wide(world), []
    answer = world.api._answer

    def watched(request: Any) -> Any:
        path = request.url.path
        if request.method in ("PUT", "POST", "DELETE") and OF_POLICIES in path and b"dryRun" not in request.url.query + request.content:
            kept = next(o for p, o in world.api.objects.items() if "/configmaps/" in p)
            journal = json.loads(kept["data"]["journal.json"])
            name = path.rpartition("/")[2] if request.method != "POST" else json.loads(request.content)["metadata"]["name"]
            entry = next(e for e in journal["entries"] if e["stage"]["policy"] == name)
            held = world.api.policies().get(name)
            begun = entry["state"] == "INTENT" and (entry["before"] or {}).get("spec") == (held or {}).get("spec")
            known.append(begun or entry["state"] in ("APPLIED", "PASSED"))
        return answer(request)

    world.api._answer = watched
    world.start((CANARY, stage))
    assert known == [True, True, True]


def test_every_change_of_what_exists_names_the_version_that_was_read(world: World) -> None:
    stage, seen = wide(world), []
    answer = world.api._answer

    def watched(request: Any) -> Any:
        if request.method == "PUT":
            seen.append(json.loads(request.content)["metadata"].get("resourceVersion"))
        if request.method == "DELETE":
            seen.append(json.loads(request.content)["preconditions"].get("resourceVersion"))
        return answer(request)

    world.api._answer = watched
    world.start((CANARY, stage))
    assert len(seen) > 5
    assert all(seen)


def test_the_canary_is_gone_at_the_end_and_its_gate_was_passed(world: World) -> None:
    journal = world.start((CANARY, wide(world)))

    assert journal.outcome is Outcome.DONE
    assert [entry.state for entry in journal.entries] == [State.UNDONE, State.PASSED]
    assert set(world.api.policies()) == {"default"}


@pytest.mark.parametrize(("evidence", "word"), [(BROKEN, "refused"), (UNKNOWN, "not heard")])
def test_a_gate_that_does_not_hold_takes_everything_back(world: World, evidence: Evidence, word: str) -> None:
    before = (wide(world), world.api.specs())
    journal = world.start((CANARY, before[0]), Eyes(namespace=evidence))

    assert journal.outcome is Outcome.ROLLED_BACK
    assert word in journal.reason
    assert world.api.specs() == before[1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), DeadlineError("not done within 5 s"), Unreachable("list pods: no answer")])
def test_what_stops_a_run_is_raised_once_everything_is_back(world: World, stop: BaseException) -> None:
    stage = wide(world)
    before, eyes = world.api.specs(), Eyes(namespace=stop)
    with pytest.raises(type(stop)):
        world.start((CANARY, stage), eyes)

    assert world.api.specs() == before
    assert world.store().load().outcome is Outcome.ROLLED_BACK
    assert eyes.seen[-1] == "gather namespace"
    assert eyes.settled


def test_the_way_back_comes_before_tidying_up_what_probed(world: World) -> None:
    stage, eyes = wide(world), Eyes(namespace=KeyboardInterrupt())
    before, then = world.api.specs(), []
    eyes.settle = lambda: then.append(world.api.specs() == before)
    with pytest.raises(KeyboardInterrupt):
        world.start((stage,), eyes)

    assert then == [True]


def test_a_strangers_edit_during_the_soak_is_left_alone_and_a_human_is_asked(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    theirs = {"mtls": {"mode": "STRICT"}, "portLevelMtls": {"9000": {"mode": "PERMISSIVE"}}, "selector": {"matchLabels": {"a": "b"}}}
    eyes.seeing = lambda stage: edit(world, "default", theirs) if stage == "namespace" else None
    journal = world.start((CANARY, stage), eyes)

    assert journal.outcome is Outcome.STUCK
    assert "PeerAuthentication shop/default was changed by somebody else" in journal.reason
    assert world.api.policies()["default"]["spec"] == theirs


def test_a_rollback_restores_what_is_still_ours_and_names_what_it_left(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    theirs = {"mtls": {"mode": "DISABLE"}}
    eyes.seeing = lambda stage: edit(world, "default", theirs) if stage == "namespace" else None
    world.start((CANARY, stage), eyes)
    journal = world.resume(lambda journal: back(journal, "asked for"))

    assert journal is not None and journal.outcome is Outcome.STUCK
    assert journal.reason.endswith("it was left alone")
    assert {name: o["spec"] for name, o in world.api.policies().items()} == {"default": theirs}

    edit(world, "default", {"mtls": {"mode": "PERMISSIVE"}})
    again = world.resume(lambda journal: back(journal, "asked for"))
    assert again is not None and again.outcome is Outcome.ROLLED_BACK


def test_somebody_who_takes_the_change_back_ends_the_run_too(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    eyes.seeing = lambda stage: edit(world, "default", {"mtls": {"mode": "PERMISSIVE"}}) if stage == "namespace" else None
    journal = world.start((CANARY, stage), eyes)

    assert journal.outcome is Outcome.ROLLED_BACK
    assert "somebody took the change back" in journal.reason
    assert set(world.api.policies()) == {"default"}


def test_labels_and_annotations_are_others_to_change(world: World) -> None:
    stage, eyes = wide(world), Eyes()

    def label(stage: str) -> None:
        held = world.api.policies()["default"]
        world.api.put({**held, "metadata": {**held["metadata"], "labels": {"team": "b"}}})

    eyes.seeing = label
    assert world.start((stage,), eyes).outcome is Outcome.DONE
    journal = world.resume(lambda journal: back(journal, "asked for"))
    assert journal is not None and journal.outcome is Outcome.ROLLED_BACK
    assert world.api.policies()["default"]["metadata"]["labels"] == {"team": "b"}


def test_a_policy_that_was_deleted_and_made_again_is_not_ours(world: World) -> None:
    stage, eyes = wide(world), Eyes()

    def again(stage: str) -> None:
        world.api.objects.pop(next(p for p in world.api.objects if p.endswith("/default")))
        world.api.put(policy("default", STRICT))

    eyes.seeing = again
    journal = world.start((stage,), eyes)
    assert journal.outcome is Outcome.STUCK
    assert world.api.policies()["default"]["spec"] == STRICT


def test_a_policy_that_appears_between_plan_and_change_is_not_overwritten(world: World) -> None:
    world.api.put(policy("default", {"mtls": {"mode": "DISABLE"}}))
    journal = world.start((CANARY, NAMESPACE))

    assert journal.outcome is Outcome.ROLLED_BACK
    assert {name: o["spec"] for name, o in world.api.policies().items()} == {"default": {"mtls": {"mode": "DISABLE"}}}


def locked(world: World, since: str) -> Any:
    """From the soak of that stage on, the server refuses to write policies (but deletes), as with its webhook cut off."""
    state = {"on": False}

    def refuse(method: str, path: str, dry_run: bool) -> int:
        return 500 if state["on"] and method == "PUT" and OF_POLICIES in path else 0

    world.api.refuse = refuse
    return lambda stage: state.update(on=state["on"] or stage == since)


def test_a_webhook_that_strict_cuts_off_is_found_after_the_soak_and_the_way_back_says_what_is_left(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    eyes.seeing = locked(world, "namespace")
    with pytest.raises(GateError) as caught:
        world.start((CANARY, stage), eyes)

    assert caught.value.exit_code == 4
    assert "not restored: PeerAuthentication meshtls-canary-cart, default in shop" in caught.value.message
    assert "meshtls migrate rollback -n shop" in caught.value.hint
    assert "the rollback would be refused" in world.store().load().reason
    assert sum(world.waited) <= LOCKED_S + BACK_S + 3

    world.api.refuse = lambda method, path, dry_run: 0
    journal = world.resume()
    assert journal is not None and journal.outcome is Outcome.ROLLED_BACK
    assert world.api.policies()["default"]["spec"] == {"mtls": {"mode": "PERMISSIVE"}}


@pytest.mark.parametrize("out", ["kubectl delete validatingpolicies.policies.kyverno.io -l meshtls.dev/guard=shop",
                                 "kubectl delete validatingwebhookconfiguration meshtls-guard"])  # fmt: skip
def test_a_way_back_that_a_guard_refuses_names_the_guards_way_out_and_no_other(world: World, out: str) -> None:
    world.start((CANARY, NAMESPACE))
    world.api.words = f"namespace shop is kept STRICT: {'x' * 500} (rule keeper-deleted; to loosen it on purpose: {out})"
    world.api.refuse = lambda method, path, dry_run: 403 if method == "DELETE" and OF_POLICIES in path and not dry_run else 0
    with pytest.raises(GateError) as caught:
        world.resume(lambda journal: back(journal, "asked for"))

    assert caught.value.hint == f"it is guarded: {out}; then to restore, from any machine: meshtls migrate rollback -n shop"


def test_what_the_run_created_is_deleted_where_only_updates_are_refused(world: World) -> None:
    eyes = Eyes(namespace=BROKEN)
    eyes.seeing = locked(world, "canary")
    assert world.start((CANARY, NAMESPACE), eyes).outcome is Outcome.ROLLED_BACK
    assert world.api.policies() == {}


def test_a_change_that_the_server_does_not_take_turns_the_run_back_with_its_words(world: World) -> None:
    stage = wide(world)
    before = world.api.specs()
    world.api.refuse = lambda method, path, dry_run: 422 if method == "PUT" and OF_POLICIES in path and not dry_run else 0
    journal = world.start((CANARY, stage))

    assert journal.outcome is Outcome.ROLLED_BACK
    assert journal.reason.endswith(": no")
    assert world.api.specs() == before


@pytest.mark.parametrize("code", [409, 429, 500, 503])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_a_server_that_fails_once_at_any_request_does_no_harm(method: str, code: int) -> None:
    """Either the run goes on, or it goes back whole; nothing half-changed is ever its end."""
    count = World()
    count.start((CANARY, wide(count)))
    for number in range(1, sum(m == method for m, _, _ in count.api.log) + 1):
        world, seen = World(), [0]
        stage = wide(world)
        before = world.api.specs()

        def once(asked: str, path: str, dry_run: bool, number: int = number, seen: list[int] = seen) -> int:
            seen[0] += asked == method
            return code if asked == method and seen[0] == number else 0

        world.api.refuse = once
        try:
            journal = world.start((CANARY, stage))
        except Exception:
            journal = world.store().load()
        world.api.refuse = lambda asked, path, dry_run: 0
        whole = world.api.specs() == before or (
            journal.outcome is Outcome.DONE and {n: s for n, (_, s) in world.api.specs().items()} == {"default": STRICT})
        # an answer of 409 to the journal's own write is another run's, and nothing may be touched any more
        assert whole or (code == 409 and not _ended(world) and world.resume(lambda j: back(j, "asked for")) and world.api.specs() == before)
        for client in world.clients:
            client.close()


def _ended(world: World) -> bool:
    return world.store().load().outcome is not Outcome.NONE


def test_another_run_that_has_written_the_journal_is_not_disturbed(world: World) -> None:
    stage, eyes = wide(world), Eyes()

    def other(stage: str) -> None:
        store = world.store()
        store.save(store.load().noted("t", "another process was here"))

    eyes.seeing = other
    count = []
    with pytest.raises(Taken):
        world.start((stage,), eyes)
    count = [entry for entry in world.api.log if entry[0] in ("PUT", "DELETE") and OF_POLICIES in entry[1] and not entry[2]]
    assert len(count) == 1, "only the change before the other run wrote"


def test_a_journal_that_is_gone_is_written_again_by_the_way_back(world: World) -> None:
    stage, eyes = wide(world), Eyes()
    before = world.api.specs()
    eyes.seeing = lambda stage: world.api.objects.pop(next(p for p in world.api.objects if "/configmaps/" in p))
    with pytest.raises(Exception, match="ConfigMap"):
        world.start((stage,), eyes)
    assert world.api.specs() == before


def test_a_lost_before_image_is_never_guessed(world: World) -> None:
    stage = wide(world)
    world.start((stage,))
    path = next(p for p in world.api.objects if "/configmaps/" in p)
    journal = json.loads(world.api.objects[path]["data"]["journal.json"])
    journal["entries"][0]["before"] = None
    world.api.objects[path]["data"]["journal.json"] = json.dumps(journal)
    ended = world.resume(lambda journal: back(journal, "asked for"))

    assert ended is not None
    assert ended.outcome is Outcome.STUCK
    assert world.api.policies()["default"]["spec"] == STRICT


@pytest.mark.parametrize("text", ["", "{", '{"run": 1}', "null"])
def test_a_journal_that_cannot_be_read_is_an_error_and_nothing_is_touched(world: World, text: str) -> None:
    world.start((wide(world),))
    path = next(p for p in world.api.objects if "/configmaps/" in p)
    world.api.objects[path]["data"]["journal.json"] = text
    with pytest.raises(Exception, match="journal cannot be read"):
        world.resume(lambda journal: back(journal, "asked for"))


def test_a_newer_journal_is_left_to_a_newer_meshtls(world: World) -> None:
    world.start((wide(world),))
    path = next(p for p in world.api.objects if "/configmaps/" in p)
    journal = json.loads(world.api.objects[path]["data"]["journal.json"]) | {"version": 99}
    world.api.objects[path]["data"]["journal.json"] = json.dumps(journal)
    with pytest.raises(Exception, match="newer meshtls"):
        world.resume()


def test_a_run_that_has_not_meant_a_change_yet_has_nothing_to_continue(world: World) -> None:
    with pytest.raises(Unreachable):
        world.start((wide(world),), Eyes(namespace=Unreachable("x")))
    journal = world.store().load()
    fresh = msgspec.structs.replace(journal, outcome=Outcome.NONE, entries=tuple(
        msgspec.structs.replace(entry, state=State.PLANNED) for entry in journal.entries))
    assert untouched(fresh)
    assert not untouched(fresh.update("namespace", state=State.INTENT))


def test_the_outcome_of_every_end_is_a_check(world: World) -> None:
    journal: Journal = world.start((wide(world),))
    stuck = msgspec.structs.replace(journal, outcome=Outcome.STUCK, reason="x")
    rolled = msgspec.structs.replace(journal, outcome=Outcome.ROLLED_BACK)
    assert [outcome_check(j, None).status for j in (journal, rolled, stuck)] == [Status.PASS, Status.FAIL, Status.ERROR]
    assert "0.25 s" in outcome_check(rolled, 0.25).reason


def test_an_entry_knows_its_object_by_identity_and_spec(world: World) -> None:
    journal = world.start((wide(world),))
    entry, live = journal.entries[0], world.api.policies()["default"]
    other = {**live, "metadata": {**live["metadata"], "uid": "another"}}
    assert compare(entry, live, "r1") is Live.WANTED
    assert compare(entry, other, "r1") is Live.FOREIGN
    assert compare(entry, {**live, "spec": {}}, "r1") is Live.FOREIGN
    assert compare(entry, None, "r1") is Live.FOREIGN
    assert HOLDS.probes == (PASSED,)

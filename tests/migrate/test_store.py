"""Two runs of one namespace never meet: the Lease keeps them apart, and the journal's version where the Lease could not."""

import datetime
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from meshtls.errors import Conflict
from meshtls.migrate import store as storing
from meshtls.migrate.store import LEASE_S, Lock, Taken, holder
from tests.migrate.conftest import World

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def lock(world: World, who: str = "other/1/1", at: datetime.datetime = NOW, take: bool = False) -> Lock:
    return Lock(world.client(), "shop", "", who, lambda: at, take)


def lease(world: World) -> dict[str, Any] | None:
    return next((o for path, o in world.api.objects.items() if "/leases/" in path), None)


def test_a_second_run_is_told_who_migrates(world: World) -> None:
    with lock(world, "ann/1/1"), pytest.raises(Taken, match="ann/1/1 is migrating this namespace") as caught, lock(world, "bob/1/1"):
        pass
    assert "--break-lock" in caught.value.hint


def test_the_lease_is_gone_with_its_run(world: World) -> None:
    with lock(world):
        assert lease(world) is not None
    assert lease(world) is None


def test_a_lease_that_nobody_renews_can_be_taken(world: World) -> None:
    dead = lock(world, "ann/1/1")
    dead.__enter__()
    later = NOW + datetime.timedelta(seconds=LEASE_S + 1)
    with lock(world, "bob/1/1", at=later):
        held = lease(world)
        assert held is not None
        assert held["spec"]["holderIdentity"] == "bob/1/1"
    assert lease(world) is None


def test_a_lease_can_be_broken_and_its_first_holder_hears_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lock(world, "ann/1/1")
    first.__enter__()
    with lock(world, "bob/1/1", take=True):
        monkeypatch.setattr(first, "_renewed", -1000.0)
        with pytest.raises(Taken, match="taken over"):
            first.renew()
        first.__exit__()
        assert lease(world) is not None, "the first holder does not delete what is another's"


def test_the_lease_of_a_process_that_died_on_this_machine_is_free(world: World) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    place = holder().rpartition("/")[0]
    lock(world, f"{place}/{child.pid}").__enter__()
    with lock(world, holder()):
        pass


def test_a_process_of_another_machine_or_container_is_not_judged_by_its_number(world: World) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for place in ("elsewhere/4026531836", f"{socket.gethostname()}/1"):
        lock(world, f"{place}/{child.pid}").__enter__()
        with pytest.raises(Taken), lock(world, holder()):
            pass
        world.api.objects.clear()


def test_a_holder_names_the_place_that_its_number_is_of() -> None:
    host, _, pid = holder().rpartition("/")
    assert host.startswith(f"{socket.gethostname()}/")
    assert int(pid) == os.getpid()


@pytest.mark.parametrize(("method", "code"), [("GET", 404), ("PUT", 409), ("PUT", 404)])
def test_a_race_for_the_lease_ends_in_one_line(world: World, method: str, code: int) -> None:
    lock(world, "ann/1/1").__enter__()
    later = NOW + datetime.timedelta(hours=1)
    world.api.refuse = lambda asked, path, dry_run: code if asked == method and "/leases/" in path else 0
    with pytest.raises(Taken, match="another run began or ended at this moment"), lock(world, "bob/1/1", at=later):
        pass


def test_a_write_whose_answer_was_lost_is_looked_up_and_not_repeated(world: World) -> None:
    from meshtls.migrate.journal import begin
    from meshtls.migrate.plan import Plan

    journal = begin(Plan(namespace="shop", was="PERMISSIVE", stages=()), run="r", now="t", who="w", soak_s=1, forced=False, accepted=())
    client = world.client()
    store = world.store(client)
    real, lost = client.create, []

    def create(obj: dict[str, Any], *rest: Any) -> dict[str, Any]:
        answer = real(obj, *rest)
        lost.append(answer)
        raise storing.Unreachable("create ConfigMap: the connection broke")

    client.create = create  # type: ignore[method-assign]
    store.save(journal)
    assert len(lost) == 1
    assert store.load() == journal


def test_whoever_read_an_older_journal_cannot_write(world: World) -> None:
    from meshtls.migrate.journal import begin
    from meshtls.migrate.plan import Plan

    journal = begin(Plan(namespace="shop", was="PERMISSIVE", stages=()), run="r", now="t", who="w", soak_s=1, forced=False, accepted=())
    first, second = world.store(), world.store()
    first.save(journal)
    second.load()
    first.save(journal.noted("t", "a"))
    with pytest.raises(Taken) as caught:
        second.save(journal.noted("t", "b"))
    assert isinstance(caught.value, Conflict)

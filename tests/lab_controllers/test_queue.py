"""The work queue's laws."""

import asyncio

from meshtls.lab.controllers.queue import Queue, Retry
from tests.lab_controllers.cluster import START, Clock, settle


def run(script):
    asyncio.run(script)


def test_many_additions_are_one_look():
    async def script():
        seen = []

        async def look(namespace, name):
            seen.append(name)

        queue = Queue(look, Clock())
        for _ in range(10):
            queue.add(("ns", "x"))
        await settle()
        assert seen == ["x"]

    run(script())


def test_an_addition_while_looking_is_one_more_look_and_never_two_at_once():
    async def script():
        running, most, looks = 0, 0, 0
        gate = asyncio.Event()

        async def look(namespace, name):
            nonlocal running, most, looks
            running, looks = running + 1, looks + 1
            most = max(most, running)
            await gate.wait()
            running -= 1

        queue = Queue(look, Clock())
        queue.add(("ns", "x"))
        await asyncio.sleep(0)
        for _ in range(5):
            queue.add(("ns", "x"))
        gate.set()
        await settle()
        assert (looks, most) == (2, 1)

    run(script())


def test_refusals_are_tried_again_ever_later_until_one_succeeds():
    async def script():
        clock, looks = Clock(), []

        async def look(namespace, name):
            looks.append(round((clock.now() - START).total_seconds(), 3))
            if len(looks) < 5:
                raise Retry("no")

        queue = Queue(look, clock)
        queue.add(("ns", "x"))
        await settle()
        while (timer := clock.next_due(START.replace(hour=13))) is not None:
            timer()
            await settle()
        assert looks == [0.0, 0.1, 0.3, 0.7, 1.5]

    run(script())


def test_a_fault_in_one_key_is_logged_and_stops_no_other(caplog):
    async def script():
        seen = []

        async def look(namespace, name):
            if name == "bad":
                raise KeyError("oops")
            seen.append(name)

        queue = Queue(look, Clock())
        queue.add(("ns", "bad"))
        queue.add(("ns", "good"))
        await settle()
        assert seen == ["good"]

    run(script())
    assert "ns/bad failed" in caplog.text


def test_a_closed_queue_leaves_nothing_behind():
    async def script():
        clock = Clock()

        async def look(namespace, name):
            return 60.0

        queue = Queue(look, clock)
        queue.add(("ns", "x"))
        await settle()
        await queue.close()
        queue.add(("ns", "x"))
        assert clock.next_due(START.replace(hour=23)) is None

    run(script())

"""Threads are shared fairly, and one that cannot be started, or is abandoned, costs nothing."""

import asyncio
import gc
import threading
import weakref

import pytest

from loss_scoring.service.errors import InvalidError, forget_frames
from loss_scoring.service.limits.budget import MemoryBudget, Reservation
from loss_scoring.service.limits.threads import Threads


class Work:
    """Work that goes on until it is released; ``began`` lists whose."""

    def __init__(self, count=3):
        self.threads = Threads(count)
        self.memory = MemoryBudget(1000)
        self.release = threading.Event()
        self.began = []

    async def of(self, client):
        def work():
            self.began.append(client)
            assert self.release.wait(10)
            return client

        with Reservation(self.memory, client) as reservation:
            return await self.threads.run(reservation, work)

    async def begin(self, *clients):
        """Ask for threads, and wait until those that can be had are at work."""
        tasks = [asyncio.create_task(self.of(client)) for client in clients]
        await asyncio.sleep(0)
        return tasks

    async def settle(self, count):
        while len(self.began) < count:  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.001)


def test_a_client_leaves_one_thread_to_others_and_clients_take_turns():
    async def main():
        work = Work(3)
        hog = await work.begin(*["hog"] * 5)
        await work.settle(2)
        newcomer = await work.begin("newcomer")
        await work.settle(3)
        other = await work.begin("other")
        assert sorted(work.began) == ["hog", "hog", "newcomer"]
        work.release.set()
        results = await asyncio.gather(*hog, *newcomer, *other)
        assert results == ["hog"] * 5 + ["newcomer", "other"]
        assert work.began.index("other") <= 4, "it does not wait behind all of the hog's"
        assert sum(work.threads._held.values()) == 0
        assert not work.threads._waiting
        assert sum(thread.name == "codec" for thread in threading.enumerate()) <= 3 + 2

    asyncio.run(main())


def test_an_ended_request_gives_its_turn_back_and_its_thread_when_that_is_done():
    async def main():
        work = Work(2)
        running, waiting, cancelled = await work.begin("a", "a", "a")
        await work.settle(1)
        cancelled.cancel()
        running.cancel()
        await asyncio.sleep(0)
        assert work.began == ["a"], "what was begun keeps its thread"
        work.release.set()
        assert await waiting == "a"
        assert work.began == ["a", "a"]
        await asyncio.gather(running, cancelled, return_exceptions=True)
        assert not work.threads._waiting
        assert not work.threads._held

    asyncio.run(main())


def test_a_thread_that_cannot_be_started_leaves_its_place(monkeypatch):
    async def main():
        work = Work(2)
        work.release.set()
        with monkeypatch.context() as patch:

            def start(_):
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            for _ in range(5):
                with pytest.raises(RuntimeError):
                    await work.of("a")
        assert not work.threads._held
        assert await work.of("a") == "a"

    asyncio.run(main())


def test_errors_are_those_of_the_work():
    async def main():
        with Reservation(MemoryBudget(1000), "a") as one, pytest.raises(ZeroDivisionError):
            await Threads(2).run(one, lambda: 1 // 0)

    asyncio.run(main())


class Body:
    """Something that a weak reference can refer to."""


def test_a_refused_body_is_released_without_the_garbage_collector():
    released = []

    def unreadable():
        raise ValueError("a cause, which has a traceback as well")

    def refuse(_sent):
        unpacked = Body()
        released.append(weakref.ref(unpacked))
        try:
            unreadable()
        except ValueError as error:
            raise InvalidError("refused") from error

    async def main():
        threads, sent = Threads(1), Body()
        released.append(weakref.ref(sent))
        with Reservation(MemoryBudget(1000), "a") as reservation:
            try:
                await threads.run(reservation, refuse, sent)
            except InvalidError as error:
                forget_frames(error)  # as the endpoint does
        del sent
        while any(reference() for reference in released):  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.001)

    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(main(), 10))
    finally:
        gc.enable()
    assert len(released) == 2

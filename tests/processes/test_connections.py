"""A front end and its worker, which is the test: how it connects, and what it makes of endings."""

import asyncio
import contextlib
import os
import resource
from unittest.mock import MagicMock

import orjson
import pytest
from connections import Listener, connection, pair

from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes import child, remote_engine
from loss_scoring.service.processes.child import Control
from loss_scoring.service.processes.endings import Ending
from loss_scoring.service.processes.memory import Arena
from loss_scoring.service.processes.remote_engine import RemoteEngine


@contextlib.asynccontextmanager
async def front_end():
    with Listener() as listener:
        engine = RemoteEngine(Arena(), QueueQuota(10**6), listener.address)
        await engine.start()
        yield engine, listener
        await engine.stop()


def greet(listener, worker, ending="none"):
    """Return the worker's end of a connection that it has greeted."""
    end = listener.accept()
    end.send(orjson.dumps({"worker": [worker, ending]}))
    return end


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)


def test_a_front_end_connects_again_and_hears_how_each_worker_ended(monkeypatch):
    endings = []
    monkeypatch.setattr(RemoteEngine, "_judge", lambda _, ending: endings.append(ending))

    async def main():
        async with front_end() as (engine, listener):
            assert not engine.ready
            for worker, ending in ((1, "none"), (1, "crashed"), (2, "crashed"), (3, "killed")):
                end = greet(listener, worker, ending)
                await connection(engine)
                assert "table" in orjson.loads(await asyncio.to_thread(end.recv, 4096))
                end.close()
                await until(lambda: not engine.ready)
        none = [Ending.NONE, Ending.NONE]
        assert endings == [*none, Ending.CRASHED, Ending.KILLED], "the first was there still"

    asyncio.run(main())


def test_a_worker_that_dies_before_it_greets_is_followed_by_the_next():
    async def main():
        async with front_end() as (engine, listener):
            listener.accept().close()
            with contextlib.closing(await asyncio.to_thread(greet, listener, 2)):
                await connection(engine)

    asyncio.run(main())


def test_without_descriptors_it_connects_once_there_is_one(monkeypatch, caplog):
    monkeypatch.setattr(remote_engine, "_RETRY_S", 0.01)

    async def main():
        async with front_end() as (engine, listener):
            end = greet(listener, 1)
            await connection(engine)
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (end.fileno() + 50, limit[1]))
                end.close()  # two descriptors are free then, and taken at once
                engine._channel._on_end = lambda: (engine._channel.close(), take(taken))
                await until(lambda: taken)
                engine._disconnected()
                assert "has to wait" in caplog.text
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
                for number in taken:
                    os.close(number)
            with contextlib.closing(await asyncio.to_thread(greet, listener, 2)):
                await connection(engine)

    asyncio.run(main())


@pytest.mark.parametrize("lost", [True, False])
def test_a_front_end_is_lost_with_its_own_device(lost):
    own = MagicMock(lost=lost)
    engine = RemoteEngine(Arena(), QueueQuota(10**6), "nowhere", inline=own)
    assert engine.lost is lost
    assert not RemoteEngine(Arena(), QueueQuota(10**6), "nowhere").lost


def take(taken):
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))


def test_heartbeats_end_with_health_and_never_wait_for_the_supervisor(monkeypatch):
    monkeypatch.setattr(child, "_HEARTBEAT_S", 0)
    monkeypatch.setattr(child.ctypes, "CDLL", MagicMock())
    healthy = iter(range(3000, -1, -1))
    ours, theirs = pair()
    control = Control(os.getppid(), theirs.detach())
    asyncio.run(control.send_heartbeats(lambda: next(healthy)))
    assert ours.recv(100) == b"{}"
    ours.close()
    control.send(ready=True)  # to nobody
    with pytest.raises(StopIteration):
        next(healthy)
    control._socket.close()

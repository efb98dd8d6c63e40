"""A front end and its supervisor, which is the test: how it gets a worker whatever is lost."""

import asyncio
import contextlib
import os
import resource
import socket

import orjson
import pytest

from loss_scoring.service.processes import heartbeat
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.frontend import Control, SupervisedEngine
from loss_scoring.service.processes.memory import SharedMemory
from loss_scoring.service.processes.remote_engine import RemoteEngine
from loss_scoring.service.processes.suspects import Ending


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Supervisor:
    """Introduces a front end to workers that only listen."""

    def __init__(self):
        self.heard = asyncio.Queue()
        self.workers = []
        one, other = pair()
        self.engine = SupervisedEngine(SharedMemory(), 10**6)
        self.engine.control = other
        self._channel = Channel(one, lambda message, _: self.heard.put_nowait(message))
        self._channel.open()

    async def ask(self):
        """Return the next message of the front end."""
        async with asyncio.timeout(60):
            return await self.heard.get()

    def introduce(self, number, ending="none"):
        """Return the worker's end."""
        one, other = pair()
        one.settimeout(60)
        self.workers.append(one)
        self._channel.send([number, ending], [other.fileno()])
        other.close()
        return one

    def close(self):
        self._channel.close()
        self.engine.control.close()
        for worker in self.workers:
            worker.close()

    def introduce_in_vain(self, number):
        self._channel.send([number, "none"])


@contextlib.asynccontextmanager
async def supervised():
    supervisor = Supervisor()
    await supervisor.engine.start()
    try:
        yield supervisor
    finally:
        supervisor.engine._beat.cancel()
        await supervisor.engine.stop()
        supervisor.close()


@pytest.fixture(autouse=True)
def beats(monkeypatch):
    monkeypatch.setattr(heartbeat, "_BEAT_S", 0.01)


async def told(end):
    """Return what a worker is told first; empty if it is left instead."""
    return await asyncio.to_thread(end.recv, 4096)


def test_a_front_end_asks_until_it_has_a_worker_and_again_once_that_is_gone(caplog, monkeypatch):
    endings = []

    def connect(engine, end, ending):
        endings.append(ending)
        RemoteEngine.connect(engine, end, ending)

    monkeypatch.setattr(SupervisedEngine, "connect", connect)
    asks = {"ready": os.getpid()}

    async def main():
        async with supervised() as supervisor:
            assert [await supervisor.ask() for _ in range(4)] == [asks, {}, asks, asks]
            supervisor.introduce_in_vain(1)
            worker = supervisor.introduce(1)
            assert "box" in orjson.loads(await told(worker))
            while await supervisor.ask() == asks:
                pass
            assert supervisor.engine.ready
            worker.close()
            while await supervisor.ask() != asks:
                pass
            assert not supervisor.engine.ready
            supervisor.introduce(1, "crashed")
            supervisor.introduce(2, "crashed")
            while len(endings) < 3:
                await supervisor.ask()
        assert endings == [Ending.NONE, Ending.NONE, Ending.CRASHED], "the first did not end"

    asyncio.run(main())
    assert "no descriptor is left" in caplog.text


def test_who_is_introduced_twice_stays_with_the_worker_it_knows():
    async def main():
        async with supervised() as supervisor:
            workers = [supervisor.introduce(number) for number in (1, 1, 2)]
            first, twice, second = [await told(worker) for worker in workers]
            assert "box" in orjson.loads(first)
            assert twice == b""
            assert "box" in orjson.loads(second)

    asyncio.run(main())


def test_a_descriptor_is_kept_free_for_a_message_that_brings_one():
    async def main():
        one, other = pair()
        brought = []
        control = Control(other, lambda _message, descriptors: brought.append(descriptors))
        control.open()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (other.fileno() + 50, limit[1]))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                socket.send_fds(one, [b"1"], [one.fileno()])
                control.read()
                assert len(brought[-1]) == 1
                os.close(*brought[-1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            for number in taken:
                os.close(number)
        control.close()
        one.close()

    asyncio.run(main())

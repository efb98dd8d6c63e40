"""What lies between a front end and the worker: memory, messages, suspicion. No processes."""

import asyncio
import contextlib
import gc
import os
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from connections import Listener, connection, pair
from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.core import LossSpec, Ragged, ScoreOptions, score
from loss_scoring.core.buffers import BufferPool
from loss_scoring.core.kernels import kernel_for
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import OverloadedError, ScoringError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.endings import Ending, Suspicion
from loss_scoring.service.processes.host import Host
from loss_scoring.service.processes.memory import Arena, ForeignArena
from loss_scoring.service.processes.remote_engine import RemoteEngine
from loss_scoring.service.processes.remote_job import RemoteJob
from loss_scoring.service.processes.wire import AnswerLayout, pack_options, unpack_options

CPU = torch.device("cpu")
OPTIONS = ScoreOptions(gradients=True)
MEBI = 1 << 20


def ragged(*series):
    return Ragged.from_series([torch.tensor(values, dtype=torch.float64) for values in series])


def submit(engine, prediction, **options):
    zeros = prediction.like(torch.zeros_like(prediction.values))
    return engine.submit(Slice(prediction, zeros, OPTIONS), **options)


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - read at once


class Workers:
    """Workers in this process, one at a time, that die on demand."""

    def __init__(self, listener, engine, kernel=None):
        self.listener = listener
        self.engine = engine
        self.kernel = kernel or kernel_for(CPU)
        self.host = None
        self.lost = self.started = 0

    async def start(self, ending=Ending.NONE):
        self.started += 1
        worker = DeviceWorker(CPU, self.kernel)
        self.host = Host(worker, 10**6, self._lost, before=ending, name=self.started)
        await self.host.engine.start()
        self.host.connect(self.listener.accept())
        await connection(self.engine)

    def _lost(self):
        self.lost += 1

    async def die(self):
        self.host.close()
        async with asyncio.timeout(60):
            while self.engine.ready:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def front_end(queue=10**7, kernel=None):
    """Yield a front end's engine and the workers that it may have."""
    with Listener() as listener:
        engine = RemoteEngine(Arena(), QueueQuota(queue), listener.address)
        await engine.start()
        workers = Workers(listener, engine, kernel)
        yield engine, workers
        engine._address = ""  # there is no next worker
        engine._channel.close()
        if workers.host is not None:
            workers.host.close()


def test_what_the_worker_scores_is_loaded_here_for_the_next_such_request():
    async def main():
        async with front_end() as (engine, workers):
            await workers.start()
            engine._inline = own = MagicMock()
            await submit(engine, ragged([1.0, 2.0]))
            assert own.load_for.call_args.args[0].options == OPTIONS

    asyncio.run(main())


def pages(arena):
    """Return how much memory the arena takes."""
    return os.fstat(arena.descriptor).st_blocks * 512


def test_blocks_are_found_by_the_address_of_any_slice_and_released_when_unused():
    arena = Arena(32 * MEBI)
    pool = BufferPool(24 * MEBI, arena.allocate)
    arrays = [pool.empty(size, np.uint8) for size in (300_000, 3 * MEBI, 400_000, 9 * MEBI)]
    for array in arrays:
        array[:] = 1
        slice_ = torch.from_numpy(array)[1000:2000]
        assert arena.offset(slice_.data_ptr(), 1000) == offset(arena, array) + 1000
    assert arena.offset(np.empty(10).ctypes.data, 80) is None
    assert pages(arena) >= 12 * MEBI
    part, start = arrays[1][5:10], offset(arena, arrays[1])
    arrays.clear()
    del array, slice_, pool
    assert MEBI <= pages(arena) <= 5 * MEBI, "a slice of one block is in use"
    taken = [arena.allocate(9 * MEBI) for _ in range(2)]
    assert all(offset(arena, block) not in range(start, start + 4 * MEBI) for block in taken)
    del part
    assert pages(arena) == 0
    del taken
    whole = arena.allocate(32 * MEBI)
    assert offset(arena, whole) == 0, "what was released is one range again"
    assert arena.offset(arena.allocate(1).ctypes.data, 1) is None, "ordinary memory, if no other"


@pytest.mark.parametrize("elements", [3, 20_000])
def test_weights_and_scales_travel_copied_or_in_place(elements):
    def kernel(*arguments):  # another than that of which all is compiled first
        return kernel_for(CPU)(*arguments)

    async def main():
        async with front_end(kernel=kernel) as (engine, workers):
            await workers.start()
            pool = BufferPool(8 * MEBI, engine._arena.allocate)
            weights = pool.empty(max(elements, 1 << 16), np.float64)[:elements]
            weights[:] = np.arange(elements)
            p = Ragged.from_lengths(np.ones(elements), [1, elements - 1])
            zeros, scales = p.like(np.zeros(elements)), np.array([2.0, 4.0])
            options = ScoreOptions((LossSpec("mae"), LossSpec("mase")), gradients=True)
            answer = await engine.submit(Slice(p, zeros, options, weights, scales))
            values, masked, _ = answer.scores.arrays()
            assert np.isnan(values["mae"][0])
            assert values["mase"].tolist()[1:] == [0.25]
            assert masked["mae"].tolist() == masked["mase"].tolist() == [1, 0]

    asyncio.run(main())


def test_released_memory_is_zero_to_the_next_owner_and_to_the_worker():
    arena = Arena(4 * MEBI)
    foreign = ForeignArena(os.dup(arena.descriptor))
    block = arena.allocate(2 * MEBI)
    block[:] = 7
    assert foreign.view(offset(arena, block) + 8, 3, np.uint8).tolist() == [7, 7, 7]
    del block
    assert not foreign.view(0, 4 * MEBI, np.uint8).any()
    assert not arena.allocate(4 * MEBI).any()


def offset(arena, block):
    return arena.offset(block.ctypes.data, block.nbytes)


def test_a_foreign_arena_trusts_nothing():
    gc.collect()
    before = descriptors()
    arena = Arena(2 * MEBI)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, 100)
    foreign = ForeignArena(os.dup(arena.descriptor))
    for start, length, dtype in [
        (-8, 1, np.float64),
        (0, -1, np.float64),
        (2 * MEBI - 7, 1, np.float64),
        (0, 2 * MEBI, np.float64),
        (0, 1 << 70, np.uint8),
    ]:
        with pytest.raises(ValueError, match="shared memory"):
            foreign.view(start, length, dtype)
    with pytest.raises(ValueError, match="sealed"):
        ForeignArena(os.memfd_create("unsealed", os.MFD_ALLOW_SEALING))
    os.close(arena.descriptor)
    del arena, foreign
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "losses", [ScoreOptions().losses, (LossSpec("smape", block_denom_grad=False),)]
)
def test_an_answer_survives_memory_to_the_bit(dtype, losses):
    options = ScoreOptions(losses, gradients=True, missing="skip", zero_division="skip")
    assert unpack_options(pack_options(options)) == options
    p = Ragged.from_lengths(torch.randn(60, dtype=dtype), [10, 20, 30])
    kernel = kernel_for(CPU)
    want = kernel(p.values, p.values.flip(0).contiguous(), p.offsets, options)
    layout = AnswerLayout(options, dtype.itemsize, 3, 60)
    block = np.empty(layout.size, np.uint8)
    layout.write(block, want)
    got = layout.scores(block)
    for actual, expected in zip(got.arrays(), want.arrays(), strict=True):
        assert list(actual) == list(expected)
        assert all(actual[name].tobytes() == expected[name].tobytes() for name in actual)


def test_invalid_requests_are_refused_and_harm_no_other(caplog):
    async def main():
        arena, answers = Arena(1 << 20), []
        host = Host(DeviceWorker(CPU, kernel_for(CPU)), 10**6, lambda: None)
        await host.engine.start()
        ours, theirs = pair()
        host.connect(ours)
        channel = Channel(theirs, lambda message, _: answers.append(message))
        channel.open()
        block = arena.allocate(1 << 19)
        block[:] = 0
        block[: 8 * 3] = np.array([0, 1, 2]).view(np.uint8)
        block[64 : 64 + 8 * 3] = np.array([0, 1 << 40, 2]).view(np.uint8)
        start = offset(arena, block)
        good = [1, pack_options(OPTIONS), 8, 2, 2, None, False, None]
        sides = [start, [start + 1024, start + 2048], [None, None], start + 4096]
        wrong = [
            [2, *good[1:], start + 64, *sides[1:]],  # offsets that leave the values
            [3, *good[1:], *sides[:3], (1 << 20) - 8],  # an answer that leaves the arena
            [4, *good[1:], start, [start + 1024, [99, 0]], *sides[2:]],
            [5, "[]", *good[2:], *sides],
            [6, good[1], 2, *good[3:], *sides],
            [7, *good[1:3], 2, 1 << 60, None, False, None, *sides],
            [8, *good[1:3], -2, 2, None, False, None, *sides],
            [9, *good[1:], *sides[:3], None],
            [10],
            [11, *good[1:], *sides[:2], [(1 << 20) - 8, None], sides[3]],  # weights that leave it
            [12, *good[1:], *sides[:2], [None, -8], sides[3]],
            [13, *good[1:], *sides[:2], [None], sides[3]],
        ]
        channel.send({"table": start + (1 << 15)}, [arena.descriptor])
        channel.send({"submit": [*wrong, [*good, *sides]], "withdraw": [77]})
        async with asyncio.timeout(60):
            while sum(len(a.get("done", ())) for a in answers) < 1:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
        failed = [entry[0] for answer in answers for entry in answer.get("failed", ())]
        assert failed == list(range(2, 14))
        channel.close()
        await host.engine.stop()

    with caplog.at_level("CRITICAL"):
        asyncio.run(main())


def test_a_worker_that_cannot_map_memory_makes_way_for_a_fresh_one(caplog):
    def accused():
        pytest.fail("what is on the device is not to blame")

    async def main():
        unfit = asyncio.Event()
        host = Host(DeviceWorker(CPU, kernel_for(CPU)), 10**6, accused, on_unfit=unfit.set)
        ours, theirs = pair()
        host.connect(ours)
        channel = Channel(theirs, lambda *_: None)
        channel.open()
        channel.send({"table": 0})  # and no descriptor: it had no room for one
        async with asyncio.timeout(60):
            await unfit.wait()
        channel.close()
        host.close()

    with caplog.at_level("CRITICAL"):
        asyncio.run(main())


def test_channels_keep_order_when_the_other_end_is_slow():
    async def main():
        ours, theirs = pair()
        seen, ended = [], asyncio.Event()
        sender = Channel(ours, lambda *_: None)
        sender.open()
        for number in range(2000):
            sender.send([number, "x" * 1000])
        receiver = Channel(theirs, lambda message, _: seen.append(message[0]), ended.set)
        receiver.open()
        async with asyncio.timeout(60):
            while len(seen) < 2000:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
            assert seen == list(range(2000))
            sender.close()
            await ended.wait()
        receiver.close()

    asyncio.run(main())


def test_requests_wait_for_a_worker_and_survive_the_next_ones():
    async def main():
        async with front_end() as (engine, workers):
            early = submit(engine, ragged([1.0]))
            gone = submit(engine, ragged([9.0]))
            gone.cancel()
            await asyncio.sleep(0)
            assert not engine.ready
            assert engine.queued_elements == 1
            await workers.start()
            assert engine.ready
            assert (await early).scores.values["mae"].tolist() == [1]
            later = []
            for n in range(5):
                later.append(submit(engine, ragged([float(n)])))
                await asyncio.sleep(0)  # it is sent, and perhaps never read
                await workers.die()
                await workers.start(Ending.KILLED)
            answers = await asyncio.gather(*later)
            assert [a.scores.values["mae"].item() for a in answers] == [0, 1, 2, 3, 4]
            assert engine.queued_elements == 0
            await engine.stop()
            with pytest.raises(OverloadedError):
                submit(engine, ragged([1.0]))

    asyncio.run(main())


def test_memory_of_a_cancelled_request_is_kept_until_the_worker_releases_it(monkeypatch):
    """It was sent to a new worker before its own copying had reported."""

    async def main():
        async with front_end() as (engine, workers):
            late, placed = [], threading.Event()
            place, report = RemoteJob.place, engine._placed
            monkeypatch.setattr(RemoteJob, "place", lambda *given: (place(*given), placed.set()))
            monkeypatch.setattr(engine, "_placed", lambda *result: late.append(result))
            large = ragged([1.0] * MEBI)
            future = submit(engine, large)
            await asyncio.to_thread(placed.wait, 20)
            with workers.listener.accept() as worker:
                worker.send(b'{"worker": [1, "none"]}')
                await connection(engine)
                future.cancel()
                while not late:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.001)
                report(*late.pop())
                assert engine.queued_elements == MEBI, "the worker may be writing there"
            await engine.stop()

    asyncio.run(main())


def test_large_requests_in_shared_memory_or_not_score_to_the_bit():
    async def main():
        async with front_end() as (engine, workers):
            await workers.start()
            make = torch.Generator().manual_seed(0)
            for elements in (1000, 100_000, 400_000):
                p = Ragged.from_lengths(
                    torch.randn(elements, generator=make, dtype=torch.float64),
                    [10] * (elements // 10),
                )
                shared = torch.from_numpy(engine._arena.allocate(8 * elements).view(np.float64))
                shared.copy_(p.values)
                want = score(p, p.like(torch.zeros_like(p.values)), gradients=True)
                for prediction in (p, p.like(shared)):
                    got = (await submit(engine, prediction)).scores
                    for actual, expected in zip(got.arrays(), want.arrays(), strict=True):
                        assert all(
                            actual[name].tobytes() == expected[name].tobytes() for name in expected
                        )
            await engine.stop()

    asyncio.run(main())


def test_a_full_queue_refuses_and_counts_until_memory_is_free():
    async def main():
        async with front_end(queue=10) as (engine, workers):
            first = submit(engine, ragged([1.0] * 8))
            with pytest.raises(OverloadedError, match="full") as caught:
                submit(engine, ragged([1.0] * 9))
            assert 1 <= caught.value.retry_after_s <= 30
            await workers.start()
            await first
            assert (await submit(engine, ragged([2.0]))).scores.values["mae"].tolist() == [2]
            await engine.stop()

    asyncio.run(main())


def test_a_lost_engine_answers_nothing_and_ends_its_process(caplog):
    async def main():
        calls = []

        def kernel(*arguments):
            calls.append(1)
            if len(calls) > 2:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return kernel_for(CPU)(*arguments)

        async with front_end(kernel=kernel) as (engine, workers):
            await workers.start()
            future = submit(engine, ragged([3.0]))
            async with asyncio.timeout(60):
                while not workers.lost:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.001)
            assert not future.done()
            await workers.die()
            workers.kernel = kernel_for(CPU)
            await workers.start(Ending.CRASHED)
            assert (await future).scores.values["mae"].tolist() == [3]
            await engine.stop()

    with caplog.at_level("CRITICAL"):
        asyncio.run(main())


def test_a_request_alone_at_a_second_crash_is_convicted():
    async def main():
        async with front_end() as (engine, workers):
            await workers.start()
            workers.host.engine._running = False  # nothing is read any more
            future = submit(engine, ragged([3.0]))
            await asyncio.sleep(0)
            for crash in range(2):
                assert not future.done(), crash
                for number in engine._jobs:
                    engine._table.marker(number)(True)  # noqa: FBT003
                await workers.die()
                await workers.start(Ending.CRASHED)
                workers.host.engine._running = False
                await asyncio.sleep(0)
            with pytest.raises(ScoringError, match="alone"):
                await future
            assert engine.queued_elements == 0

    asyncio.run(main())


@given(st.lists(st.sampled_from(Ending), max_size=12))
def test_one_crash_or_three_kills_convict_no_request(endings):
    suspicion, guilty = Suspicion(), False
    for ending in endings:
        guilty = guilty or suspicion.convicts(ending)
    crashes, kills = endings.count(Ending.CRASHED), endings.count(Ending.KILLED)
    if crashes == 0:
        assert guilty == (kills > 4)
    elif crashes == 1 and kills == 0:
        assert not guilty
    elif crashes >= 2:
        assert guilty
    assert suspicion.alone == (crashes + kills > 0)

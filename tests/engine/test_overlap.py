"""The engine with a batch in flight while the next is staged: what it begins when, and what is kept."""

import asyncio
import contextlib
import logging

import pytest
from lazy_streams import LazyStreams
from test_engine import CPU, POISON, Kernel, entered, ragged, submit

from loss_scoring.service.engine import BatchPolicy, Engine
from loss_scoring.service.engine.staging import Staging
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import ScoringError


@contextlib.asynccontextmanager
async def running(kernel, *, batch=1, overlapping=True, on_batch=lambda *_: None):
    """Run an engine whose log tells when a batch is begun and when its kernel has run."""
    fake = LazyStreams()
    worker = (
        DeviceWorker(CPU, fake.kernel(kernel), lambda _: Staging(fake))
        if overlapping
        else DeviceWorker(CPU, kernel)
    )
    policy = BatchPolicy(batch_elements=batch)
    engine = Engine(worker, policy, on_batch)
    await engine.start()
    for log in (fake.log, kernel.calls):
        log.clear()
    kernel.entered.clear()
    try:
        yield engine, fake.log
    finally:
        kernel.gate.set()
        await engine.stop()
    assert fake.hazards == []


async def queued_behind_one(engine, kernel, *predictions):
    """Submit a request that blocks the device, and then others; returns their futures."""
    kernel.gate.clear()
    first = submit(engine, ragged([0.0]))
    await entered(kernel)
    return [first, *(submit(engine, prediction) for prediction in predictions)]


def test_the_next_batch_is_begun_before_the_last_is_finished_and_no_third():
    async def main():
        kernel = Kernel()
        async with running(kernel) as (engine, log):
            futures = await queued_behind_one(engine, kernel, *(ragged([x]) for x in (1.0, 2, 3)))
            kernel.gate.set()
            answers = await asyncio.gather(*futures)
        begun, runs = ("begun",), [("run", [float(x)]) for x in range(4)]
        assert log == [begun, runs[0], begun, begun, runs[1], begun, runs[2], runs[3]]
        assert [answer.scores.values["mae"].item() for answer in answers] == [0, 1, 2, 3]

    asyncio.run(main())


def test_a_device_that_scores_at_once_hands_a_batch_back_before_it_begins_the_next():
    async def main():
        kernel, log = Kernel(), []
        kernel.calls = log
        on_batch = lambda batch: log.append(f"{batch[0]} back")  # noqa: E731
        async with running(kernel, overlapping=False, on_batch=on_batch) as (engine, _):
            futures = await queued_behind_one(engine, kernel, ragged([1.0]), ragged([2.0]))
            kernel.gate.set()
            await asyncio.gather(*futures)
        assert log == [[0.0], "1 back", [1.0], "1 back", [2.0], "1 back"]

    asyncio.run(main())


def test_a_request_cut_over_two_batches_in_flight_fails_once(caplog):
    async def main():
        kernel = Kernel()
        async with running(kernel) as (engine, _):
            cut = ragged([POISON], [1.0], [POISON])
            futures = await queued_behind_one(engine, kernel, cut, ragged([5.0]))
            kernel.gate.set()
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert isinstance(results[1], ScoringError)
            assert results[2].scores.values["mae"].item() == 5
            assert (await submit(engine, ragged([6.0]))).scores.values["mae"].item() == 6
        assert engine._jobs == {}
        assert engine.queued_elements == 0

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_a_request_withdrawn_in_flight_is_dropped_and_its_rest_never_begun():
    async def main():
        kernel = Kernel()
        async with running(kernel) as (engine, log):
            cut, last = ragged(*[[float(x)] for x in range(1, 9)]), ragged([9.0])
            kernel.gate.clear()
            future = submit(engine, cut)
            await entered(kernel)  # the first series runs, the second is begun
            future.cancel()
            await asyncio.sleep(0)
            assert engine.queued_elements == 0
            kernel.gate.set()
            assert (await submit(engine, last)).scores.values["mae"].item() == 9
        assert [values for event, *values in log if event == "run"] == [[[1.0]], [[2.0]], [[9.0]]]
        assert engine._jobs == {}

    asyncio.run(main())


def test_stop_finishes_what_is_in_flight():
    async def main():
        kernel = Kernel()
        async with running(kernel) as (engine, _):
            futures = await queued_behind_one(engine, kernel, *(ragged([x]) for x in (1.0, 2, 3)))
            stopping = asyncio.create_task(engine.stop())
            await asyncio.sleep(0)
            kernel.gate.set()
            answers = await asyncio.gather(*futures)
            await stopping
        assert [answer.scores.values["mae"].item() for answer in answers] == [0, 1, 2, 3]

    asyncio.run(main())


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_no_request_is_lost_when_the_worker_dies_with_two_batches_in_flight(dies_at, caplog):
    finished = []

    def dies(*_):
        finished.append(1)
        if len(finished) == dies_at:
            raise RuntimeError("a defect")

    async def main():
        kernel = Kernel()
        async with running(kernel, on_batch=dies) as (engine, _):
            futures = await queued_behind_one(engine, kernel, *(ragged([x]) for x in (1.0, 2, 3)))
            kernel.gate.set()
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(result, ScoringError) for result in results[dies_at - 1 :])
            values = [result.scores.values["mae"].item() for result in results[: dies_at - 1]]
            assert values == list(range(dies_at - 1))
            assert not engine.ready
        assert engine._jobs == {}

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())
    assert "died" in caplog.text


def test_a_batch_is_timed_from_its_begin_to_its_end():
    async def main():
        kernel, batches = Kernel(), []
        on_batch = lambda batch: batches.append(batch[1:])  # noqa: E731
        async with running(kernel, batch=3, on_batch=on_batch) as (engine, _):
            kernel.gate.clear()
            future = submit(engine, ragged([1.0, 2.0]))
            await entered(kernel)
            await asyncio.sleep(0.05)
            kernel.gate.set()
            answer = await future
        ((elements, seconds),) = batches
        assert elements == 2
        assert seconds == answer.compute_s >= 0.05

    asyncio.run(main())

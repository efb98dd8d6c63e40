"""Devices that run out of memory, poison, break for good or hang: what is lost, and what is told."""

import asyncio
import contextlib
import logging
import math
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core import LossSpec, Ragged, ScoreOptions, Scores
from loss_scoring.core.kernels import kernel_for
from loss_scoring.service.engine import BatchPolicy, Engine, Limits, Slice
from loss_scoring.service.engine.worker import DeviceLostError, DeviceWorker
from loss_scoring.service.errors import DeadlineError, OverloadedError, ScoringError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.limits.fairness import DrainRate

CPU = torch.device("cpu")
POISON = 666.0
OPTIONS = ScoreOptions(gradients=True)


class FaultyKernel:
    """The kernel of the CPU on a device with little memory, an allergy to POISON, and an end."""

    def __init__(self, memory=math.inf):
        self.memory = memory
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.sizes = []

    def __call__(self, prediction, target, offsets, options, *further):
        self.entered.set()
        assert self.gate.wait(10)
        self.sizes.append(len(prediction))
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if len(prediction) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if bool((prediction == POISON).any()):
            raise RuntimeError("poisoned")
        return kernel_for(CPU)(prediction, target, offsets, options, *further)


def ragged(*series):
    return Ragged.from_series([torch.tensor(values, dtype=torch.float64) for values in series])


def slice_of(prediction):
    return Slice(
        prediction, Ragged(torch.zeros_like(prediction.values), prediction.offsets), OPTIONS
    )


def losses(result):
    return result if isinstance(result, Exception) else result.values["mae"].tolist()


@contextlib.asynccontextmanager
async def running(kernel, *, batch=1000, queue=1000, hung_s=math.inf):
    policy = BatchPolicy(batch_elements=batch)
    limits, quota = Limits(hung_s=hung_s), QueueQuota(queue)
    engine = Engine(DeviceWorker(CPU, kernel), policy, limits=limits, quota=quota)
    await engine.start()
    kernel.sizes.clear()
    kernel.entered.clear()
    try:
        yield engine, policy
    finally:
        kernel.gate.set()
        await engine.stop()


def submit(engine, prediction, **options):
    return engine.submit(slice_of(prediction), **options)


async def entered(kernel):
    await asyncio.get_running_loop().run_in_executor(None, kernel.entered.wait, 10)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(9, 40),
    st.booleans(),
)
def test_out_of_memory_costs_halves_and_no_answer(lengths, memory, weighted):
    worker = DeviceWorker(CPU, FaultyKernel(memory))
    slices = [
        slice_of(ragged(*([float(i + k)] * length for k, length in enumerate(sizes))))
        for i, sizes in enumerate(lengths)
    ]
    if weighted:
        options = ScoreOptions((LossSpec("mae"), LossSpec("mase")), gradients=True)
        slices = [
            part._replace(
                options=options,
                weights=np.arange(part.prediction.elements) + 0.5,
                scales=np.arange(len(part.prediction)) + 1.5,
            )
            for part in slices
        ]
    logging.disable(logging.ERROR)
    try:
        results = worker.begin(slices).finish()
    finally:
        logging.disable(logging.NOTSET)
    for part, got in zip(slices, results, strict=True):
        want = DeviceWorker(CPU).score(part)
        for actual, expected in zip(got.arrays(), want.arrays(), strict=True):
            assert {name: x.tolist() for name, x in actual.items()} == {
                name: x.tolist() for name, x in expected.items()
            }


def test_a_series_that_is_too_large_alone_fails_alone(caplog):
    worker = DeviceWorker(CPU, FaultyKernel(memory=3))
    with caplog.at_level(logging.CRITICAL):
        good, bad, mixed = worker.begin(
            [
                slice_of(ragged([1.0])),
                slice_of(ragged([2.0] * 5)),
                slice_of(ragged([3.0], [4.0] * 5)),
            ]
        ).finish()
    assert losses(good) == [1]
    assert isinstance(bad, torch.OutOfMemoryError)
    assert isinstance(mixed, torch.OutOfMemoryError)


@pytest.mark.parametrize("memory", [100, 400], ids=["halves fail too", "halves fit"])
def test_the_budget_shrinks_and_comes_back_slowly(caplog, memory):
    async def main():
        kernel = FaultyKernel(memory)
        async with running(kernel, batch=640) as (engine, policy):
            answer = await submit(engine, ragged(*([[1.0]] * 600)))
            assert answer.scores.values["mae"].tolist() == [1.0] * 600
            assert policy.batch_elements == 320
            kernel.memory = math.inf
            seen = []
            for _ in range(20):
                await submit(engine, ragged([1.0]))
                seen.append(policy.batch_elements)
            assert seen == [min(640, 320 + 20 * n) for n in range(1, 21)]

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


NO_MEMORY = (
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8"),
    MemoryError("Unable to allocate 8 bytes"),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=["torch", "numpy"])
def test_a_shortage_on_the_cpu_costs_halves_and_then_nothing(error, caplog):
    kernel = FaultyKernel(memory=4)

    def call(*given):
        try:
            return kernel(*given)
        except torch.OutOfMemoryError:
            raise error from None

    worker = DeviceWorker(CPU, call)
    with caplog.at_level(logging.CRITICAL):
        assert losses(worker.score(slice_of(ragged([1.0] * 4, [2.0] * 4)))) == [1, 2]
        kernel.memory = 0
        assert worker.score(slice_of(ragged([1.0]))) is error, "and the device is not lost"
        kernel.memory = 4
        assert losses(worker.score(slice_of(ragged([1.0])))) == [1]


def test_what_cannot_be_joined_fails_alone(monkeypatch, caplog):
    cat, fails = Scores.cat, [True, False]

    def cat_or_fail(parts):
        if len(parts) > 1 and fails.pop(0):
            raise NO_MEMORY[0]
        return cat(parts)

    async def main():
        async with running(FaultyKernel(), batch=2) as (engine, _):
            monkeypatch.setattr(Scores, "cat", cat_or_fail)
            cut = [[1.0], [2.0], [3.0]]
            with pytest.raises(OverloadedError) as refused:
                await submit(engine, ragged(*cut))
            assert refused.value.reason == "exhausted"
            answer = await submit(engine, ragged(*cut))
            assert answer.scores.values["mae"].tolist() == [1, 2, 3]

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_a_shortage_outside_the_kernel_fails_what_was_admitted_and_nothing_later(caplog):
    shortages = [MemoryError()]

    def on_batch(_):
        if shortages:
            raise shortages.pop()

    async def main():
        kernel = FaultyKernel()
        policy = BatchPolicy(batch_elements=1000)
        engine = Engine(DeviceWorker(CPU, kernel), policy, on_batch)
        await engine.start()
        kernel.gate.clear()
        kernel.entered.clear()
        first = submit(engine, ragged([1.0]))
        await entered(kernel)
        second = submit(engine, ragged([2.0]))
        kernel.gate.set()
        failed = await asyncio.gather(first, second, return_exceptions=True)
        assert [error.reason for error in failed] == ["exhausted"] * 2
        assert engine.ready
        assert (await submit(engine, ragged([3.0]))).scores.values["mae"].tolist() == [3]
        await engine.stop()
        assert policy.queued_elements == 0

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_poison_among_32_is_found_in_few_calls(caplog):
    kernel = FaultyKernel()
    worker = DeviceWorker(CPU, kernel)
    slices = [slice_of(ragged([POISON if n == 13 else float(n)])) for n in range(32)]
    with caplog.at_level(logging.CRITICAL):
        results = worker.begin(slices).finish()
    assert [losses(scores) for scores in results if not isinstance(scores, Exception)] == [
        [n] for n in range(32) if n != 13
    ]
    assert str(results[13]) == "poisoned"
    assert len(kernel.sizes) <= 1 + 2 * 5 + 2, "halves, and a look at whether the device lives"


def test_a_device_that_fails_whatever_it_is_given_is_lost(caplog):
    async def main():
        kernel = FaultyKernel()
        async with running(kernel) as (engine, _):
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            second = submit(engine, ragged([2.0]))
            kernel.broken = True
            assert not engine.lost
            kernel.gate.set()
            results = await asyncio.gather(first, second, return_exceptions=True)
            assert all(isinstance(result, ScoringError) for result in results)
            assert engine.lost
            assert not engine.ready
            with pytest.raises(OverloadedError):
                submit(engine, ragged([1.0]))

    with caplog.at_level(logging.CRITICAL + 1):
        asyncio.run(main())


def test_the_worker_distinguishes_a_lost_device_from_a_bad_slice(caplog):
    kernel = FaultyKernel()
    worker = DeviceWorker(CPU, kernel)
    with caplog.at_level(logging.CRITICAL):
        assert isinstance(worker.score(slice_of(ragged([POISON]))), RuntimeError)
        kernel.broken = True
        with pytest.raises(DeviceLostError):
            worker.score(slice_of(ragged([1.0])))


def test_a_hung_device_is_noticed_and_its_return_too():
    async def main():
        kernel = FaultyKernel()
        async with running(kernel, hung_s=0.05) as (engine, _):
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            await asyncio.sleep(0.06)
            assert engine.hung
            assert engine.lost
            assert not engine.ready
            with pytest.raises(OverloadedError, match="does not answer"):
                submit(engine, ragged([2.0]))
            kernel.gate.set()
            assert (await first).scores.values["mae"].tolist() == [1.0]
            assert (await submit(engine, ragged([2.0]))).scores.values["mae"].tolist() == [2.0]
            assert engine.ready

    asyncio.run(main())


def test_a_pause_of_the_machine_is_no_hang():
    async def main():
        kernel = FaultyKernel()
        async with running(kernel, hung_s=30) as (engine, _):
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            counted, last = engine._awake._last
            engine._awake._last = counted, last - 3600  # as if it had been paused since
            assert not engine.hung
            assert engine.ready
            kernel.gate.set()
            await first

    asyncio.run(main())


def test_what_is_late_is_never_computed():
    async def main():
        kernel = FaultyKernel()
        async with running(kernel) as (engine, policy):
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            late = submit(engine, ragged([2.0] * 7), deadline=time.monotonic() + 0.01)
            patient = submit(engine, ragged([3.0] * 3), deadline=time.monotonic() + 60)
            await asyncio.sleep(0.02)
            kernel.gate.set()
            with pytest.raises(DeadlineError):
                await late
            await first
            await patient
            assert kernel.sizes == [1, 3]
            assert policy.queued_elements == 0

    asyncio.run(main())


def test_a_full_queue_says_when_to_come_back():
    async def main():
        kernel = FaultyKernel()
        async with running(kernel, queue=15) as (engine, _):
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            waiting = submit(engine, ragged([1.0] * 10))
            with pytest.raises(OverloadedError) as caught:
                submit(engine, ragged([1.0] * 5), client="other")
            assert 1 <= caught.value.retry_after_s <= 30
            kernel.gate.set()
            await asyncio.gather(first, waiting)

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=30),
    st.integers(0, 10**9),
)
def test_retry_after_is_always_a_sane_number(events, waiting):
    rate, now = DrainRate(), 0.0
    for amount, pause in events:
        now += pause
        rate.drained(amount, now=now)
    assert 1 <= rate.seconds_for(waiting, now=now) <= 30
    assert 1 <= rate.seconds_for(waiting, now=now + 1e6) <= 30

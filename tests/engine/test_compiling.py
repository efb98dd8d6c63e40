"""A request that needs what was not compiled yet waits, and holds up no other."""

import asyncio
import gc
import threading
import weakref

import pytest
import torch

from loss_scoring.core import LossSpec, Ragged, ScoreOptions, kernel_for
from loss_scoring.service.engine import BatchPolicy, Engine, Limits, Slice
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import ScoringError
from loss_scoring.service.limits.budget import QueueQuota

CPU = torch.device("cpu")
UNCOMMON = ScoreOptions((LossSpec("bias"),))


class SlowCompiler(DeviceWorker):
    """Has compiled nothing but for the default losses, and compiles when it is told to."""

    def __init__(self) -> None:
        super().__init__(CPU, kernel_for(CPU))
        self.may_compile = threading.Event()
        self.compiled: set[ScoreOptions] = {ScoreOptions()}

    def is_compiled(self, part):
        return part.options in self.compiled

    def compilation_for(self, part, *, only_cached=False):
        options = part.options

        def compile_for():
            assert self.may_compile.wait(60)
            self.compiled.add(options)

        return compile_for


def ones():
    return Ragged.from_lengths(torch.ones(3, dtype=torch.float64), [3])


def run(scenario, worker, quota=None):
    async def main():
        policy, limits = BatchPolicy(batch_elements=1000), Limits(inline_elements=9)
        engine = Engine(worker, policy, limits=limits, quota=quota)
        await engine.start()
        try:
            await asyncio.wait_for(scenario(engine), 60)
        finally:
            worker.may_compile.set()
            await engine.stop()

    asyncio.run(main())


def test_others_are_served_while_a_request_waits_for_the_compiler():
    worker = SlowCompiler()

    async def scenario(engine):
        assert engine.score_inline(Slice(ones(), ones(), UNCOMMON)) is None
        waiting = engine.submit(Slice(ones(), ones(), UNCOMMON))
        for _ in range(3):
            answer = await engine.submit(Slice(ones(), ones(), ScoreOptions()))
            assert answer.scores.values["mae"].tolist() == [0]
        assert not waiting.done()
        worker.may_compile.set()
        answer = await waiting
        assert answer.scores.values["bias"].tolist() == [0]
        assert engine.score_inline(Slice(ones(), ones(), UNCOMMON)) is not None

    run(scenario, worker)


def test_a_cancelled_request_is_not_queued_once_it_was_compiled():
    worker = SlowCompiler()

    async def scenario(engine):
        engine.submit(Slice(ones(), ones(), UNCOMMON)).cancel()
        worker.may_compile.set()
        await engine.submit(Slice(ones(), ones(), UNCOMMON))
        assert engine.queued_elements == 0

    run(scenario, worker)


def test_a_cancelled_request_is_not_kept_until_its_turn_comes():
    worker, quota = SlowCompiler(), QueueQuota(100)

    async def scenario(engine):
        first = engine.submit(Slice(ones(), ones(), UNCOMMON))  # which the compiler is at
        prediction = ones()
        values = weakref.ref(prediction)
        waiting = engine.submit(Slice(prediction, ones(), UNCOMMON))
        del prediction
        assert quota.held == 6
        waiting.cancel()
        del waiting
        await asyncio.sleep(0)
        gc.collect()
        assert quota.held == 3
        assert values() is None
        first.cancel()

    run(scenario, worker, quota)


def test_what_the_compiler_fails_of_is_the_requests_error():
    worker = SlowCompiler()

    def fail():
        raise OSError("no space left")

    worker.compilation_for = lambda _part: fail

    async def scenario(engine):
        with pytest.raises(ScoringError):
            await engine.submit(Slice(ones(), ones(), UNCOMMON))
        await engine.submit(Slice(ones(), ones(), ScoreOptions()))

    run(scenario, worker)


def test_what_another_process_has_compiled_is_loaded_once_and_then_scored_inline():
    worker, loads = SlowCompiler(), []

    compilation_for = worker.compilation_for

    def loading_for(part, *, only_cached):
        assert only_cached
        loads.append(part.options)
        return compilation_for(part)

    worker.compilation_for = loading_for

    async def scenario(engine):
        whole = Slice(ones(), ones(), UNCOMMON)
        engine.load_for(whole)
        engine.load_for(whole)
        assert engine.score_inline(whole) is None
        worker.may_compile.set()
        while (answer := engine.score_inline(whole)) is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
        assert answer.scores.values["bias"].tolist() == [0]
        engine.load_for(whole)
        large = torch.ones(10, dtype=torch.float64)
        large = Ragged.from_lengths(large, [10])
        engine.load_for(Slice(large, large, ScoreOptions((LossSpec("mse"),))))

    run(scenario, worker)
    assert loads == [UNCOMMON]

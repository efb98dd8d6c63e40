"""The engine and its worker, with kernels that wait, remember and fail on command.

Each test runs on a device that has scored a batch once it is begun, on one that scores while the
next is staged, and, where that is no matter of the engine's own thread, through the channel and the
shared memory that lie between a front end and the worker's process.
"""

import asyncio
import contextlib
import gc
import logging
import threading
import weakref

import numpy as np
import pytest
import torch
from connections import Listener, connection
from lazy_streams import LazyStreams

from loss_scoring.core import LossSpec, Ragged, ScoreOptions, Scores, score
from loss_scoring.core.kernels import kernel_for
from loss_scoring.service.engine import BatchPolicy, Engine, Limits, Slice
from loss_scoring.service.engine import engine as module
from loss_scoring.service.engine import worker as device_worker
from loss_scoring.service.engine.engine import Job
from loss_scoring.service.engine.staging import Staging
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import OverloadedError, OverShareError, ScoringError, ServiceError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.host import Host
from loss_scoring.service.processes.memory import Arena
from loss_scoring.service.processes.remote_engine import RemoteEngine

CPU = torch.device("cpu")
POISON = 666.0
OPTIONS = ScoreOptions(gradients=True)
QUEUES = weakref.WeakKeyDictionary()
"""The engine with the device, of each that has none."""
make_worker = None
"""Set for each test by ``worker_of``."""


class Kernel:
    """The kernel of the CPU with a gate, a memory and an allergy to POISON."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.calls = []

    def __call__(self, prediction, target, offsets, options, *further):
        self.entered.set()
        assert self.gate.wait(10)
        self.calls.append(prediction.tolist())
        if bool((prediction == POISON).any()):
            raise RuntimeError("poisoned")
        return kernel_for(CPU)(prediction, target, offsets, options, *further)


def at_once(kernel):
    return DeviceWorker(CPU, kernel)


def overlapping(kernel):
    fake = LazyStreams()
    return DeviceWorker(CPU, fake.kernel(kernel), lambda _: Staging(fake))


def remote(kernel):
    return DeviceWorker(CPU, kernel)


NOT_REMOTE = (
    "broken",  # a worker that cannot start is the supervisor's to see
    "worker_dies",  # test_remote.py
    "full_queue",  # here it counts what is on the device, too
    "starts_once",
    "small_request",
    "memory",
    "as_core_does",
    "hangs",  # a matter of its own engine
)


@pytest.fixture(autouse=True, params=[at_once, overlapping, remote])
def worker_of(request, monkeypatch):
    if request.param is remote and any(word in request.node.name for word in NOT_REMOTE):
        pytest.skip("not a matter of where the engine is")
    monkeypatch.setitem(globals(), "make_worker", request.param)
    return request.param


def ragged(*series):
    return Ragged.from_series([torch.tensor(values, dtype=torch.float64) for values in series])


def zeros_like(prediction):
    return Ragged(torch.zeros_like(prediction.values), prediction.offsets)


@contextlib.asynccontextmanager
async def running(kernel=None, *, batch=10**6, queue=10**6, on_batch=lambda *_: None, inline=0):
    worker = make_worker(kernel or Kernel())
    async with contextlib.AsyncExitStack() as stack:
        if make_worker is remote:
            engine = await stack.enter_async_context(connected(worker, batch, queue, on_batch))
        else:
            policy, quota = BatchPolicy(batch_elements=batch), QueueQuota(queue)
            engine = Engine(worker, policy, on_batch, Limits(inline_elements=inline), quota)
            await engine.start()
        if kernel is not None:
            kernel.calls.clear()
            kernel.entered.clear()
        try:
            yield engine
        finally:
            await engine.stop()


@contextlib.asynccontextmanager
async def connected(worker, batch, queue, on_batch):
    """Yield a front end's engine, with a worker's engine at the other end of its channel."""
    host = Host(worker, batch, lambda: pytest.fail("the engine is lost"))
    await host.engine.start()
    with Listener() as listener:
        engine = RemoteEngine(Arena(), QueueQuota(queue), listener.address, on_batch)
        await engine.start()
        host.connect(listener.accept())
        await connection(engine)
    QUEUES[engine] = host.engine
    yield engine
    host.close()
    await host.engine.stop()
    assert host.engine._jobs == {}


def submit(engine, prediction, options=OPTIONS, client=""):
    return engine.submit(Slice(prediction, zeros_like(prediction), options), client=client)


def score_inline(engine, prediction):
    return engine.score_inline(Slice(prediction, zeros_like(prediction), OPTIONS))


async def entered(kernel):
    await asyncio.get_running_loop().run_in_executor(None, kernel.entered.wait, 10)
    kernel.entered.clear()


async def queued(engine, elements):
    """Wait until so many elements wait for the device."""
    async with asyncio.timeout(60):
        while QUEUES.get(engine, engine).queued_elements != elements:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)


def assert_same(got: Scores, want: Scores):
    for actual, expected in (
        (got.values, want.values),
        (got.masked, want.masked),
        (got.gradients, want.gradients),
    ):
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[name], expected[name]) for name in actual)


def test_requests_that_wait_share_one_batch():
    async def main():
        kernel, batches = Kernel(), []
        async with running(kernel, on_batch=lambda batch: batches.append(batch[0])) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            others = [submit(engine, ragged([float(n)])) for n in range(2, 7)]
            await queued(engine, 5)
            kernel.gate.set()
            answers = await asyncio.gather(first, *others)
        assert kernel.calls == [[1.0], [2.0, 3.0, 4.0, 5.0, 6.0]]
        assert batches == [1, 5]
        assert [a.scores.values["mae"].item() for a in answers] == [1, 2, 3, 4, 5, 6]
        assert all(a.queue_s >= 0 and a.compute_s > 0 for a in answers)

    asyncio.run(main())


def test_requests_with_weights_or_scales_share_a_call_only_with_such():
    options = ScoreOptions((LossSpec("mae"), LossSpec("mase")), gradients=True)
    weights, scales = np.array([1.0, 3.0, 0.5]), np.array([2.0, 0.0])
    kinds = [(None, scales), (weights, scales), (None, scales), (weights, scales)]

    async def main():
        kernel, prediction = Kernel(), ragged([1.0, 3.0], [4.0])
        target = zeros_like(prediction)
        async with running(kernel, batch=1 << 10) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            sent = [
                engine.submit(Slice(prediction, target, options, *further)) for further in kinds
            ]
            await queued(engine, 12)
            kernel.gate.set()
            answers = await asyncio.gather(first, *sent)
        assert sorted(map(len, kernel.calls)) == [1, 6, 6]
        for answer, (given, _) in zip(answers[1:], kinds, strict=True):
            weight = None if given is None else prediction.like(torch.from_numpy(given))
            want = score(
                prediction, target, options.losses, weights=weight, scales=scales, gradients=True
            )
            for got, expected in zip(answer.scores.arrays(), want.arrays(), strict=True):
                assert {name: column.tobytes() for name, column in got.items()} == {
                    name: column.tobytes() for name, column in expected.items()
                }

    asyncio.run(main())


def test_weights_and_scales_are_cut_with_their_series():
    async def main():
        make = np.random.default_rng(1)
        lengths = make.integers(1, 40, 60)
        prediction, weights = (
            Ragged.from_lengths(make.random(lengths.sum()), lengths) for _ in range(2)
        )
        options = ScoreOptions((LossSpec("mae"), LossSpec("mase")), gradients=True)
        scales, target = make.random(60), zeros_like(prediction)
        kernel = Kernel()
        async with running(kernel, batch=50) as engine:
            answer = await engine.submit(Slice(prediction, target, options, weights.array, scales))
        assert len(kernel.calls) > 10
        want = score(
            prediction, target, options.losses, weights=weights, scales=scales, gradients=True
        )
        assert_same(answer.scores, want)

    asyncio.run(main())


def test_a_request_over_the_budget_is_cut_and_joined_to_the_bit():
    async def main():
        make = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, 40, (60,), generator=make)
        p = torch.randn(int(lengths.sum()), generator=make, dtype=torch.float64)
        prediction = Ragged.from_lengths(p, lengths)
        kernel = Kernel()
        async with running(kernel, batch=50) as engine:
            answer = await submit(engine, prediction)
        assert len(kernel.calls) > 10
        assert max(map(len, kernel.calls)) <= 50
        assert_same(answer.scores, score(prediction, zeros_like(prediction), gradients=True))

    asyncio.run(main())


def test_options_and_dtypes_are_kept_apart_in_one_batch():
    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            narrow = Ragged(torch.tensor([1 / 3], dtype=torch.float32), torch.tensor([0, 1]))
            mae = ScoreOptions((LossSpec("mae"),))
            other = [submit(engine, narrow), submit(engine, ragged([2.0]), mae)]
            kernel.gate.set()
            await first
            narrow_answer, mae_answer = await asyncio.gather(*other)
        assert narrow_answer.scores.gradients["mae"].dtype == torch.float32
        assert narrow_answer.scores.values["mae"].item() == torch.tensor(1 / 3).double().item()
        assert list(mae_answer.scores.values) == ["mae"]
        assert mae_answer.scores.gradients == {}

    asyncio.run(main())


def test_a_cancelled_request_is_never_computed():
    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            gone, stays = submit(engine, ragged([2.0])), submit(engine, ragged([3.0]))
            gone.cancel()
            await queued(engine, 1)
            first.cancel()  # it is on the device already; its answer is dropped
            kernel.gate.set()
            assert (await stays).scores.values["mae"].item() == 3
        assert kernel.calls == [[1.0], [3.0]]
        assert all(job.future.done() for job in engine._jobs.values())

    asyncio.run(main())


def test_a_cut_request_that_is_cancelled_stops_halfway(worker_of):
    async def main():
        kernel = Kernel()
        async with running(kernel, batch=1) as engine:
            kernel.gate.clear()
            future = submit(engine, ragged(*[[float(n)] for n in range(50)]))
            await entered(kernel)
            future.cancel()
            await queued(engine, 0)
            kernel.gate.set()
            await submit(engine, ragged([99.0]))
        begun = [[1.0]] if worker_of is overlapping else []
        assert kernel.calls == [[0.0], *begun, [99.0]]

    asyncio.run(main())


def test_a_poisoned_request_fails_alone(caplog):
    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            others = [submit(engine, ragged([x])) for x in (2.0, POISON, 3.0)]
            kernel.gate.set()
            await first
            results = await asyncio.gather(*others, return_exceptions=True)
            assert results[0].scores.values["mae"].item() == 2
            assert isinstance(results[1], ScoringError)
            assert results[2].scores.values["mae"].item() == 3
            assert engine.ready

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_a_full_queue_refuses_and_recovers():
    async def main():
        kernel = Kernel()
        async with running(kernel, queue=5) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            waiting = submit(engine, ragged([1.0, 2.0, 3.0]))
            with pytest.raises(OverShareError, match="await their answers"):
                submit(engine, ragged([1.0]))
            with pytest.raises(OverloadedError, match="full"):
                submit(engine, ragged([1.0]), client="newcomer")
            kernel.gate.set()
            await asyncio.gather(first, waiting)
            await submit(engine, ragged([1.0]))

    asyncio.run(main())


def test_stop_finishes_what_was_admitted_and_then_refuses():
    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            kernel.gate.clear()
            futures = [submit(engine, ragged([float(n)])) for n in range(5)]
            stopping = asyncio.create_task(engine.stop())
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                submit(engine, ragged([1.0]))
            kernel.gate.set()
            answers = await asyncio.gather(*futures)
            await stopping
        assert [a.scores.values["mae"].item() for a in answers] == [0, 1, 2, 3, 4]

    asyncio.run(main())


@pytest.mark.parametrize("end", ["hung", "abandoned"])
def test_stop_does_not_wait_for_a_device_that_hangs_nor_for_cancelled_requests(monkeypatch, end):
    monkeypatch.setattr(module, "_ABANDONED_S", 0.05)

    async def main():
        kernel = Kernel()
        limits = Limits(hung_s=0.05 if end == "hung" else 60)
        policy = BatchPolicy(batch_elements=100)
        engine = Engine(make_worker(kernel), policy, limits=limits)
        await engine.start()
        kernel.gate.clear()
        future = submit(engine, ragged([1.0]))
        stopping = asyncio.create_task(engine.stop())
        try:
            if end == "abandoned":
                await entered(kernel)
                await asyncio.sleep(0.2)
                assert not stopping.done(), "somebody waits"
                future.cancel()
            async with asyncio.timeout(60):
                await stopping
        finally:
            kernel.gate.set()
            engine._thread.join()

    asyncio.run(main())


def test_not_ready_before_the_start_nor_when_the_device_is_broken():
    policy = BatchPolicy(batch_elements=1)

    def broken(*_):
        raise RuntimeError("no device")

    engine = Engine(make_worker(broken), policy)
    assert not engine.ready
    with pytest.raises(OverloadedError, match="starting"):
        submit(engine, ragged([1.0]))
    with pytest.raises(RuntimeError, match="no device"):
        asyncio.run(engine.start())
    assert not engine.ready


def test_when_the_worker_dies_every_request_fails(caplog):
    def dies(*_):
        raise RuntimeError("a defect")

    async def main():
        kernel = Kernel()
        async with running(kernel, on_batch=dies) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            second = submit(engine, ragged([2.0]))
            kernel.gate.set()
            results = await asyncio.gather(first, second, return_exceptions=True)
            assert all(isinstance(result, ScoringError) for result in results)
            assert not engine.ready

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())
    assert "died" in caplog.text


def test_no_request_is_lost_when_the_worker_dies_halfway_through_a_batch(monkeypatch, caplog):
    collect, calls = Job.collect, []

    def dies_on_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("a defect")
        return collect(*arguments)

    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            kernel.gate.clear()
            first = submit(engine, ragged([1.0]))
            await entered(kernel)
            others = [submit(engine, ragged([float(n)])) for n in range(4)]
            monkeypatch.setattr(Job, "collect", dies_on_the_third)
            kernel.gate.set()
            results = await asyncio.gather(first, *others, return_exceptions=True)
            assert results[0].scores.values["mae"].item() == 1
            failed = results[1:]
            assert all(isinstance(result, ScoringError) for result in failed)
            assert len(set(map(id, failed))) == len(failed), "each request has its own traceback"
            await engine.stop()  # the thread forgets them after it has answered
            assert engine._jobs == {}
            assert engine.queued_elements == 0
            assert not engine.ready
        assert engine._jobs == {}
        assert engine.queued_elements == 0

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


async def outcome(future):
    try:
        await future
    except ServiceError as error:
        return type(error).__name__
    return "answered"


@pytest.mark.parametrize("end", ["answered", "ScoringError", "DeadlineError"])
def test_a_request_leaves_nothing_in_memory_even_if_none_follows(caplog, end):
    async def main():
        kernel = Kernel()
        async with running(kernel) as engine:
            prediction = ragged([POISON if end == "ScoringError" else 1.0] * 10)
            target, seen = zeros_like(prediction), weakref.ref(prediction)
            late = {"deadline": 0.0} if end == "DeadlineError" else {}
            future = engine.submit(Slice(prediction, target, OPTIONS), **late)
            assert await outcome(future) == end
            del prediction, target, future
            async with asyncio.timeout(60):
                while seen() is not None:  # noqa: ASYNC110 - the device's thread lets go of it
                    await asyncio.sleep(0)

    gc.disable()  # only a cycle would need it
    try:
        with caplog.at_level(logging.CRITICAL):
            asyncio.run(main())
    finally:
        gc.enable()


def test_an_engine_starts_once():
    async def main():
        async with running() as engine:
            with pytest.raises(RuntimeError, match="once"):
                await engine.start()

    asyncio.run(main())


def test_no_series_need_no_device():
    async def main():
        empty = Ragged(torch.empty(0, dtype=torch.float64), torch.tensor([0]))
        kernel = Kernel()
        async with running(kernel) as engine:
            answer = await submit(engine, empty)
        assert kernel.calls == []
        assert_same(answer.scores, score(empty, empty, gradients=True))

    asyncio.run(main())


def test_a_small_request_is_scored_at_once_while_the_device_is_busy(caplog, worker_of):
    if worker_of is overlapping:
        pytest.skip("only a CPU scores on the event loop")

    async def main():
        kernel, batches = Kernel(), []
        on_batch = lambda batch: batches.append(tuple(batch[:2]))  # noqa: E731
        async with running(kernel, inline=2, on_batch=on_batch) as engine:
            kernel.gate.clear()
            large = submit(engine, ragged([1.0, 2.0, 3.0]))
            await entered(kernel)
            queued = submit(engine, ragged([4.0], [5.0, 6.0]))
            assert engine.queued_elements == 3
            kernel.gate.set()
            held = engine._quota.held
            small = score_inline(engine, ragged([7.0], [8.0]))
            assert engine._quota.held == held == 6, "what is scored inline is never queued"
            assert_same(
                small.scores,
                score(ragged([7.0], [8.0]), ragged([0.0], [0.0]), gradients=True),
            )
            with pytest.raises(ScoringError):
                score_inline(engine, ragged([POISON]))
            assert score_inline(engine, ragged([1.0, 2.0, 3.0])) is None
            await asyncio.gather(large, queued)
        assert engine._quota.held == 0
        assert engine._jobs == {}
        assert sorted(batches) == [(1, 1), (1, 2), (1, 3), (1, 3)]
        with pytest.raises(OverloadedError):
            score_inline(engine, ragged([1.0]))

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_500_tagged_requests_get_their_own_answers():
    async def main():
        async with running(batch=64) as engine:

            async def client(tag: int) -> None:
                prediction = ragged(*[[float(tag)] * (1 + tag % 7)] * (1 + tag % 30))
                answer = await submit(engine, prediction)
                assert answer.scores.values["mae"].tolist() == [float(tag)] * len(prediction)

            await asyncio.gather(*map(client, range(500)))

    asyncio.run(main())


@pytest.mark.parametrize(("has", "takes"), [(4, 3), (2, 2)])
def test_torch_takes_no_more_threads_than_a_container_has_time_for(
    worker_of, monkeypatch, has, takes
):
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(device_worker, "available_cores", lambda: 3)
        torch.set_num_threads(has)
        worker_of(kernel_for(CPU)).warm_up()
        assert torch.get_num_threads() == takes
    finally:
        torch.set_num_threads(before)


def test_worker_scores_as_core_does(worker_of):
    worker = worker_of(kernel_for(CPU))
    worker.warm_up()
    sides = [ragged([1.0, 0.0], [3.0]), ragged([5.0])]
    pieces = [Slice(p, zeros_like(p), OPTIONS) for p in sides]
    for piece, got in zip(pieces, worker.begin(pieces).finish(), strict=True):
        assert isinstance(got, Scores)
        assert_same(got, score(piece.prediction, piece.target, gradients=True))

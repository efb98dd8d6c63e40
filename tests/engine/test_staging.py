"""Staging on streams that run late or early: right numbers, or something was not waited for."""

import logging
from contextlib import nullcontext
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from lazy_streams import LazyStreams

from loss_scoring.core import LossSpec, Ragged, ScoreOptions, Scores, kernel_for
from loss_scoring.core.buffers import SMALLEST
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.engine.staging import CudaStreams, Staging
from loss_scoring.service.engine.worker import DeviceWorker, staging_for

CPU = torch.device("cpu")
GRADIENTS = ScoreOptions(gradients=True)
CHOICES = [
    GRADIENTS,
    ScoreOptions((LossSpec("mape"), LossSpec("mae")), gradients=False, missing="skip"),
    ScoreOptions((LossSpec("smape", block_denom_grad=False),), gradients=True),
]
POISON = 666.0


def staged(fake, kernel=None, **limits):
    kernel = fake.kernel(kernel or kernel_for(CPU))
    return DeviceWorker(CPU, kernel, lambda _: Staging(fake, **limits))


def slice_of(seed, options=GRADIENTS, dtype=torch.float32, lengths=(3, 1, 20)):
    make = torch.Generator().manual_seed(seed)
    sides = (torch.randn(sum(lengths), generator=make).to(dtype) for _ in range(2))
    return Slice(*(Ragged.from_lengths(side, lengths) for side in sides), options)


def mixed(seed):
    dtypes = torch.float32, torch.float64
    slices = [slice_of(100 * seed + i, CHOICES[i % 3], dtypes[i % 2]) for i in range(8)]
    slices += further(slices[0])[: seed % 4]
    return slices + [slices[0]] * (seed % 3)


def further(part):
    """Return slices with weights, with scales, and with both."""
    weights, scales = np.arange(24) % 3.0, np.arange(3) * 1.5
    mae, mase = (ScoreOptions((LossSpec(name),)) for name in ("mae", "mase"))
    return [
        part._replace(options=mae, weights=weights),
        part._replace(options=mase, scales=scales),
        part._replace(options=mase, weights=weights, scales=scales),
    ]


def alike(seed):
    return [slice_of(seed), slice_of(seed + 50)]


def assert_same(got, want):
    for actual, expected in zip(got, want, strict=True):
        assert isinstance(actual, Scores), actual
        for part in ("values", "masked", "gradients"):
            columns, wanted = getattr(actual, part), getattr(expected, part)
            assert list(columns) == list(wanted)
            for name, column in columns.items():
                assert column.dtype == wanted[name].dtype
                assert column.numpy().tobytes() == wanted[name].numpy().tobytes(), (part, name)


@pytest.mark.parametrize("eagerness", [0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("make", [mixed, alike])
def test_batches_in_flight_score_as_the_plain_path_does(eagerness, make):
    fake, plain = LazyStreams(eagerness), DeviceWorker(CPU)
    worker = staged(fake)
    batches = [make(seed) for seed in range(12)]
    want = [plain.begin(slices).finish() for slices in batches]
    flying, got = [], []
    for slices in batches:
        flying.append(worker.begin(slices))
        if len(flying) > 1:
            got.append(flying.pop(0).finish())
            assert_same(got[-1], want[len(got) - 1])
    got.append(flying.pop().finish())
    for actual, expected in zip(got, want, strict=True):  # still so after the batches that followed
        assert_same(actual, expected)
    assert fake.hazards == []


def test_an_answer_is_left_alone_until_its_last_view_is_gone():
    fake = LazyStreams()
    staging = Staging(fake)
    worker = DeviceWorker(CPU, fake.kernel(kernel_for(CPU)), lambda _: staging)
    (scores,) = worker.begin([slice_of(0)]).finish()
    sent = memoryview(scores.gradients["smape"].numpy())[5:9]
    before = bytes(sent)
    address = scores.gradients["smape"].data_ptr()
    del scores
    addresses = set()
    for seed in range(1, 9):
        (other,) = worker.begin([slice_of(seed)]).finish()
        addresses.add(other.gradients["smape"].data_ptr())
        del other
    assert bytes(sent) == before
    assert address not in addresses
    del sent
    for seed in range(9):
        (other,) = worker.begin([slice_of(seed)]).finish()
        addresses.add(other.gradients["smape"].data_ptr())
    assert address in addresses
    assert staging._pool.retained_bytes <= 4 * SMALLEST


def test_the_host_waits_only_when_it_finishes():
    fake = LazyStreams()
    worker = staged(fake)
    first, second = worker.begin([slice_of(1)]), worker.begin([slice_of(2)])
    assert fake.log == [("begun",)] * 2
    assert not first.done
    first.finish()
    assert [event for event, *_ in fake.log] == ["begun", "begun", "run"]
    assert not second.done
    fake.drain()
    assert second.done
    second.finish()


def poisoned(kernel=kernel_for(CPU)):  # noqa: B008 - the same each time
    def call(prediction, *others):
        if bool((prediction == POISON).any()):
            raise RuntimeError("poisoned")
        return kernel(prediction, *others)

    return call


def with_poison(at, n=4):
    slices = [slice_of(seed) for seed in range(n)]
    slices[at].prediction.values[2] = POISON
    return slices


@pytest.mark.parametrize("eagerness", [0, 0.9])
def test_a_failure_on_the_device_shows_at_the_finish_and_spoils_no_other(eagerness, caplog):
    fake = LazyStreams(eagerness)
    worker, plain = staged(fake, poisoned()), DeviceWorker(CPU)
    slices, others = with_poison(1), [slice_of(7), slice_of(8)]
    pending = worker.begin(slices)
    following = worker.begin(others)
    fake.drain()
    assert pending.done
    with caplog.at_level(logging.CRITICAL):
        got = pending.finish()
    assert isinstance(got.pop(1), RuntimeError)
    assert_same(got, plain.begin(slices[:1] + slices[2:]).finish())
    assert_same(following.finish(), plain.begin(others).finish())
    assert fake.hazards == []


class Refusing(LazyStreams):
    """Refuses one call, counted from the first batch: of its kernel, or of a copy."""

    def __init__(self, kernels=None, copies=None):
        super().__init__()
        self.refused = {"kernels": kernels, "copies": copies}
        self.calls = dict.fromkeys(self.refused, 0)

    def _count(self, what):
        self.calls[what] += 1
        if self.calls[what] == self.refused[what]:
            raise RuntimeError("refused")

    def copy(self, to, source):
        self._count("copies")
        super().copy(to, source)

    def kernel(self, inner):
        call = super().kernel(inner)

        def counted(*arguments):
            self._count("kernels")
            return call(*arguments)

        return counted


@pytest.mark.parametrize(
    "refused", [{"kernels": 1}, *({"copies": n} for n in (2, 3, 4, 6))], ids=str
)
def test_a_failure_at_the_begin_lets_go_of_nothing_that_is_in_use(refused, caplog):
    fake, plain = Refusing(**refused), DeviceWorker(CPU)
    worker = staged(fake)
    with caplog.at_level(logging.CRITICAL):
        pending = worker.begin([slice_of(1)])
    assert pending.done
    (failed,) = pending.finish()
    assert isinstance(failed, RuntimeError)
    following = [worker.begin([slice_of(seed)]) for seed in (2, 3)]
    for seed, pending in zip((2, 3), following, strict=True):
        assert_same(pending.finish(), plain.begin([slice_of(seed)]).finish())
    assert fake.hazards == []


def test_beyond_the_pinned_memory_batches_are_still_right():
    fake, plain = LazyStreams(), DeviceWorker(CPU)
    worker = staged(fake, pinned_bytes=2 * SMALLEST)
    large = [slice_of(seed, lengths=(SMALLEST // 4, 5)) for seed in range(3)]
    batches = [worker.begin([part]) for part in large]
    for batch, part in zip(batches, large, strict=True):
        assert_same(batch.finish(), plain.begin([part]).finish())
    assert fake.hazards == []


def test_only_cuda_is_staged():
    assert staging_for(CPU) is None


@pytest.fixture
def torch_stand_ins(monkeypatch):
    """Torch's CUDA classes with their methods and signatures, and nothing behind them."""
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, create_autospec(getattr(torch.cuda, name)))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory is pinned where there is CUDA")
def test_it_calls_torch_as_torch_is_declared(torch_stand_ins, caplog):
    streams = CudaStreams(CPU)
    worker = DeviceWorker(CPU, stage=lambda _: Staging(streams))
    with caplog.at_level(logging.WARNING):
        assert_same(worker.begin(mixed(0)).finish(), DeviceWorker(CPU).begin(mixed(0)).finish())
    assert "no pinned memory" in caplog.text
    streams.drain()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_staged_scores_are_those_of_the_plain_path_on_a_gpu():
    device = torch.device("cuda")
    worker, plain = DeviceWorker(device), DeviceWorker(device, stage=lambda _: None)
    rng = np.random.default_rng(0)
    sizes = [(int(n),) * 7 for n in rng.integers(1, 200_000, 30)]
    batches = [[slice_of(i, lengths=lengths), *mixed(i)] for i, lengths in enumerate(sizes)]
    want = [plain.begin(slices).finish() for slices in batches]
    flying, got = [], []
    for slices in batches:
        flying.append(worker.begin(slices))
        if len(flying) > 1:
            got.append(flying.pop(0).finish())
    got.append(flying.pop().finish())
    for actual, expected in zip(got, want, strict=True):
        assert_same(actual, expected)

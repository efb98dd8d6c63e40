"""The worker: runs batches of slices on a device."""

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numba.core import event
from numpy.typing import NDArray

from loss_scoring.core import (
    Kernel,
    Ragged,
    ScoreOptions,
    Scores,
    is_compiled_kernel,
    kernel_for,
    takes_arrays,
    warm_up,
)
from loss_scoring.core.machine import Device, available_cores
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.errors import is_exhausted

if TYPE_CHECKING:
    from loss_scoring.service.engine.staging import Staged, Staging

log = logging.getLogger(__name__)


class DeviceLostError(Exception):
    """The device cannot even score a batch of ones, so it will score nothing else."""


def announce_compilation() -> None:
    """Log once when numba begins to compile, since a minute of silence looks like a fault."""
    event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]


class _Announcement(event.Listener):
    _logged = False

    def on_start(self, _event: Any) -> None:
        if not self._logged:
            self._logged = True
            log.info("compiling what no cache has; a first start takes a minute or more")

    def on_end(self, _event: Any) -> None:
        pass


def staging_for(device: Device) -> "Staging | None":
    """Return how batches get to ``device`` while it computes; None if it is not a CUDA device."""
    if device.type != "cuda":
        return None
    import torch  # noqa: PLC0415 - it takes a second, which a CPU does without

    from loss_scoring.service.engine.staging import CudaStreams, Staging  # noqa: PLC0415

    return Staging(CudaStreams(torch.device(str(device))))


def device_memory(device: Device) -> dict[str, int]:
    """Return bytes by state: allocated and reserved by this process, free, total.

    Empty on a CPU, and before the process has opened the device, which this does not.
    """
    if device.type != "cuda":
        return {}
    from torch import cuda  # noqa: PLC0415 - see above

    if not cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    name = str(device)
    try:
        free, total = cuda.mem_get_info(name)
    except RuntimeError:  # the device is lost
        free = total = 0
    allocated, reserved = cuda.memory_allocated(name), cuda.memory_reserved(name)
    return {"allocated": allocated, "reserved": reserved, "free": free, "total": total}


_Started = Union[Scores, "Staged", Exception]
"""What a kernel call has come to: scores, a batch in flight, or why there is none."""


class DeviceWorker:
    """Owns one device: copies a batch to it, scores, copies back.

    Args:
        device: Where to compute.
        kernel: Overrides the kernel chosen for the device.
        stage: Overrides the staging chosen for the device. Without one, copies and kernels take
            turns, and a batch is scored once it has begun.
    """

    def __init__(
        self,
        device: Device,
        kernel: Kernel | None = None,
        stage: "Callable[[Device], Staging | None]" = staging_for,
    ) -> None:
        self.device = device
        self._kernel = kernel or kernel_for(str(device))
        self._array_kernel = self._kernel if takes_arrays(self._kernel) else None
        self._compiled_kernel = self._kernel if is_compiled_kernel(self._kernel) else None
        self._stage = stage
        self.exhausted = 0
        """How often the device ran out of memory."""

    @cached_property
    def _staging(self) -> "Staging | None":
        return self._stage(self.device)  # late, as a process with a CUDA context must not fork

    def warm_up(self) -> None:
        """Compile the kernel and score a tiny batch, so that no request waits for a compiler."""
        if torch := sys.modules.get("torch"):
            # It takes a thread for each processor of the node, whatever the container's quota.
            torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        if self._kernel is kernel_for(str(self.device)):
            warm_up(str(self.device))
        self._score_ones()

    def is_compiled(self, part: Slice) -> bool:
        """Tell whether scoring a slice waits for no compiler."""
        kernel, prediction = self._compiled_kernel, part.prediction
        kind = part.options, prediction.itemsize, prediction.elements
        return kernel is None or kernel.is_compiled(*kind, weighted=part.weights is not None)

    def compilation_for(self, part: Slice, *, only_cached: bool = False) -> Callable[[], None]:
        """Return what compiles for such a slice, or loads it from the cache; it keeps no slice.

        With ``only_cached`` it does nothing where the cache lacks it.
        """
        kernel, prediction = self._compiled_kernel, part.prediction
        assert kernel is not None  # noqa: S101 - else nothing has to be compiled
        kind = part.options, prediction.itemsize, prediction.elements
        prepare = kernel.load_for if only_cached else kernel.compile_for
        return partial(prepare, *kind, weighted=part.weights is not None)

    def score(self, part: Slice) -> Scores | Exception:
        """Score one slice alone.

        Raises:
            DeviceLostError: If the device fails whatever it is given.
        """
        try:
            return _result_of(self._launch(part))
        except Exception as error:  # noqa: BLE001 - whatever it is, this slice fails of it
            return self._retry([part], self._failed([part], error))[0]

    def begin(self, slices: Sequence[Slice]) -> "Batch":
        """Start to score slices, which with staging need not be scored when this returns.

        Slices that agree in options and dtype, and in having weights and scales, share one kernel
        call.
        """
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, part in enumerate(slices):
            groups[part.agreement].append(i)
        batch = Batch(self._finish)
        for positions in groups.values():
            group = [slices[i] for i in positions]
            batch.groups.append((positions, group, self._start(group)))
        return batch

    def _score_ones(self) -> None:
        for kind in (np.float32, np.float64):
            ragged = Ragged.from_lengths(np.ones(2, kind), [1, 1])
            _result_of(self._launch(Slice(ragged, ragged, ScoreOptions(gradients=True))))

    def _start(self, group: Sequence[Slice]) -> _Started:
        try:
            return self._launch(*group)
        except Exception as error:  # noqa: BLE001 - whatever it is, one group fails of it
            return self._failed(group, error)

    def _launch(self, *group: Slice) -> "Scores | Staged":
        """Start to score slices that agree, in one kernel call."""
        prediction, target, options, weights, scales = group[0]
        if len(group) > 1 or self._staging is not None:
            predictions, targets = (
                [part.prediction for part in group],
                [part.target for part in group],
            )
            weights = _joined([part.weights for part in group])
            scales = _joined([part.scales for part in group])
            if self._staging is not None:
                return self._staging.begin(
                    predictions, targets, self._kernel, options, weights, scales
                )
            prediction, target = Ragged.cat(predictions), Ragged.cat(targets)
        if self._array_kernel is not None:
            sides = prediction.array, target.array
            return self._array_kernel(*sides, prediction.offsets, options, weights, scales)
        p, y = prediction.values, target.values
        on_cpu = self.device.type == "cpu"  # a copy that does nothing still costs
        if not on_cpu:
            p, y = p.to(str(self.device)), y.to(str(self.device))
        scores = self._kernel(p, y, prediction.offsets, options, weights, scales)
        return scores if on_cpu else scores.to("cpu")

    def _finish(self, group: Sequence[Slice], started: _Started) -> Sequence[Scores | Exception]:
        """Return the scores of each slice; one that fails gets its exception and spoils no other.

        Raises:
            DeviceLostError: If the device fails whatever it is given.
        """
        if isinstance(started, Exception):
            return self._retry(group, started)
        try:
            return _cut(_result_of(started), group)
        except Exception as error:  # noqa: BLE001 - whatever it is, one group fails of it
            return self._retry(group, self._failed(group, error))

    def _retry(self, group: Sequence[Slice], error: Exception) -> Sequence[Scores | Exception]:
        """Score a failed group in halves: to find the culprit, or to need less memory."""
        if len(group) > 1:
            middle = len(group) // 2
            halves = group[:middle], group[middle:]
            return [result for half in halves for result in self._finish(half, self._start(half))]
        (part,) = group
        if is_exhausted(error) and len(part.prediction) > 1:
            return [self._score_halves(part)]
        try:
            self._score_ones()
        except Exception as lost:
            if not is_exhausted(lost):  # which may pass
                raise DeviceLostError(f"{self.device} fails whatever it is given") from lost
        return [error]

    def _score_halves(self, part: Slice) -> Scores | Exception:
        scores = []
        for half in _halves(part):
            result = self.score(half)
            if isinstance(result, Exception):
                return result
            scores.append(result)
        try:
            return Scores.cat(scores)
        except Exception as error:  # noqa: BLE001 - such as no memory for the whole
            return self._failed([part], error)

    def _failed(self, group: Sequence[Slice], error: Exception) -> Exception:
        log.error("scoring %d slices failed on %s", len(group), self.device, exc_info=error)
        if is_exhausted(error):
            self.exhausted += 1
            if self.device.type == "cuda":
                from torch import cuda  # noqa: PLC0415 - see above

                cuda.empty_cache()  # cached blocks may have the wrong size
        return error.with_traceback(None)  # its frames would keep the tensors alive


class Batch:
    """Slices that are being scored, in groups that share a kernel call."""

    def __init__(
        self, finish: Callable[[Sequence[Slice], _Started], Sequence[Scores | Exception]]
    ) -> None:
        self.groups: list[tuple[Sequence[int], Sequence[Slice], _Started]] = []
        """Positions in the batch, the slices there, and what their kernel call has come to."""
        self._finish = finish

    @property
    def done(self) -> bool:
        """Whether ``finish`` would not wait for the device."""
        return all(
            isinstance(started, Scores | Exception) or started.done for *_, started in self.groups
        )

    def finish(self) -> list[Scores | Exception]:
        """Return the scores in the order of the slices; call it once.

        A slice that fails gets its exception and spoils no other.

        Raises:
            DeviceLostError: If the device fails whatever it is given.
        """
        results: dict[int, Scores | Exception] = {}
        for positions, group, started in self.groups:
            results.update(zip(positions, self._finish(group, started), strict=True))
        return [results[i] for i in range(len(results))]


def _result_of(started: "Scores | Staged") -> Scores:
    return started if isinstance(started, Scores) else started.finish()


def _halves(part: Slice) -> tuple[Slice, Slice]:
    """Cut a slice between two series, as near to the middle of its elements as may be."""
    offsets = part.prediction.offsets
    middle = int(np.searchsorted(offsets, offsets[-1] // 2))
    middle = min(max(middle, 1), len(part.prediction) - 1)
    return part.cut(0, middle), part.cut(middle, len(part.prediction))


def _joined(columns: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """Join the weights or scales of slices, which all have them or none."""
    present = [column for column in columns if column is not None]
    if len(present) < 2:
        return present[0] if present else None
    return np.concatenate(present)


def _cut(scores: Scores, group: Sequence[Slice]) -> list[Scores]:
    if len(group) == 1:
        return [scores]
    cut, series, elements = [], 0, 0
    for part in group:
        ragged = part.prediction
        stop, end = series + len(ragged), elements + ragged.elements
        cut.append(scores.slice(slice(series, stop), slice(elements, end)))
        series, elements = stop, end
    return cut

"""Batches to a GPU and back: how near to PCIe, and what the overlap of copies and kernels is worth.

Three ways score the same batches: ``plain`` copies from and to pageable memory, ``in turn`` goes
through pinned memory but finishes each batch before the next, ``overlap`` is what the service does.
The share is that of the busier direction: its bytes a second over those of a lone copy of pinned
memory. Every batch is also copied into pinned memory by one core, which may be the lower ceiling
(the title's ``host``).

    python bench/staging.py [--elements 4194304] [--batches 20] [--repeats 5]
"""

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.engine.worker import DeviceWorker

LENGTH = 96


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, the device's work included."""
    run()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ceilings(repeats: int) -> tuple[float, float, float]:
    """Return bytes a second of lone copies: to the device, from it, and within the host."""
    size = 256 << 20
    pinned = torch.ones(size, dtype=torch.uint8).pin_memory()
    pageable = torch.ones(size, dtype=torch.uint8)
    there = torch.empty(size, dtype=torch.uint8, device="cuda")
    pairs = (there, pinned), (pinned, there), (pinned, pageable)
    incoming, outgoing, within = (
        size / seconds(partial(to.copy_, source, non_blocking=True), repeats)
        for to, source in pairs
    )
    return incoming, outgoing, within


def in_turn(worker: DeviceWorker, batches: list[list[Slice]]) -> None:
    for pieces in batches:
        worker.begin(pieces).finish()


def overlapping(worker: DeviceWorker, batches: list[list[Slice]]) -> None:
    flying: deque = deque()
    for pieces in batches:
        flying.append(worker.begin(pieces))
        if len(flying) > 1:
            flying.popleft().finish()
    flying.popleft().finish()


def piece(series: int, dtype: torch.dtype, options: ScoreOptions) -> Slice:
    made = (torch.randn(series * LENGTH, dtype=dtype) for _ in range(2))
    return Slice(*(Ragged.from_lengths(side, [LENGTH] * series) for side in made), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=4 << 20)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    console = Console(width=100)
    if not torch.cuda.is_available():
        console.print("torch sees no CUDA device, so there is nothing to measure.")
        return
    device = torch.device("cuda")
    staged, plain = DeviceWorker(device), DeviceWorker(device, stage=lambda _: None)
    staged.warm_up()
    plain.warm_up()
    up, down, within = ceilings(arguments.repeats)
    table = Table(
        "dtype",
        "gradients",
        *("plain ms", "in turn ms", "overlap ms", "in GB/s", "out GB/s", "share of PCIe"),
        title=f"{torch.cuda.get_device_name()}: lone copies in {up / 1e9:.1f}, out "
        f"{down / 1e9:.1f}, host {within / 1e9:.1f} GB/s",
    )
    series = max(arguments.elements // LENGTH // 4, 1)
    for dtype in (torch.float32, torch.float64):
        for gradients in (False, True):
            options = ScoreOptions(gradients=gradients)
            batches = [[piece(series, dtype, options) for _ in range(4)]] * arguments.batches
            ways = [partial(in_turn, plain), partial(in_turn, staged), partial(overlapping, staged)]
            times = [
                seconds(partial(way, batches), arguments.repeats) / len(batches) for way in ways
            ]
            column = 4 * series * LENGTH * dtype.itemsize
            rates = 2 * column / times[-1], 3 * column * gradients / times[-1]
            table.add_row(
                str(dtype).removeprefix("torch."),
                "three" if gradients else "none",
                *(f"{1e3 * each:.2f}" for each in times),
                *(f"{rate / 1e9:.1f}" for rate in rates),
                f"{max(rates[0] / up, rates[1] / down):.2f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()

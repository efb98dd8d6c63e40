"""The CUDA kernel against the memory of its GPU, and against what would be used instead.

``launch`` is what a batch costs on the device, its pieces being there already, and ``G/s`` billions
of elements a second of that. The share is of the rate of a lone copy within the device's memory:
the bytes of both inputs and of all gradients, over the time of the launch. ``call`` is the whole
kernel, with what the host does, ``plain`` the plain kernel, in whole-buffer operations of torch on
the same device, and ``modules`` a loop over the modules of the losses that darts has (its own
compute the same), one call a series: both as multiples of the call.

It begins with what matters most and ends when its time is over; what was left out is said.

    python bench/gpu.py [--seconds 150] [--repeats 7] [--dry-run]

A dry run is one on the CPU without Triton's kernel, with a few small series.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from loss_scoring.core import DEFAULT_LOSSES, LOSSES, Kernel, LossSpec, ScoreOptions
from loss_scoring.core.kernels import kernel_for
from loss_scoring.core.kernels.plain import plain_kernel

SAMPLE = 100
"""Series that the loop over modules scores; its time is scaled up."""
Sides = tuple[torch.Tensor, torch.Tensor, np.ndarray]


def shapes(*, small: bool) -> dict[str, np.ndarray]:
    ragged = np.random.default_rng(0).lognormal(4.5, 1.5, 20_000).clip(1, 5000).astype(np.int64)
    regular = {"10k x 96": (10_000, 96), "1k x 10k": (1000, 10_000), "100k x 96": (100_000, 96)}
    lengths = {name: np.full(n, t) for name, (n, t) in regular.items()} | {"ragged": ragged}
    return {name: those[:3].clip(0, 99) for name, those in lengths.items()} if small else lengths


def sets() -> Iterator[tuple[str, tuple[LossSpec, ...]]]:
    yield "default", tuple(map(LossSpec, DEFAULT_LOSSES))
    for name in LOSSES:
        yield name, (LossSpec(name),)


def sides(lengths: np.ndarray, dtype: torch.dtype, device: torch.device) -> Sides:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    generator = torch.Generator().manual_seed(1)
    made = (torch.randn(int(offsets[-1]), generator=generator) * 5 + 10 for _ in range(2))
    prediction, target = (side.to(dtype).to(device) for side in made)
    return prediction, target, offsets


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of a call, the device's work included."""
    run()
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def on_device(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of a call as the device sees it, queued behind others."""
    if device.type != "cuda":
        return seconds(run, device, repeats)
    run()
    marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    times: list[float] = [start.elapsed_time(stop) for start, stop in pairwise(marks)]
    return statistics.median(times) / 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bandwidth(device: torch.device, repeats: int, size: int) -> float:
    """Return bytes a second that a copy within the device's memory reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    there = torch.empty_like(source)
    return 2 * size / on_device(partial(there.copy_, source), device, repeats)


def resident() -> float:
    """Return the memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def launch_of(
    kernel: Kernel, batch: Sides, options: ScoreOptions, scales: torch.Tensor
) -> Callable[[], object]:
    """Return a launch for all sums, and gradients if they are asked for."""
    prediction, target, offsets = batch
    if kernel is plain_kernel:
        return partial(plain_kernel, *batch, options, None, scales)
    from loss_scoring.core.kernels.fused_cuda import Batch, Plan  # noqa: PLC0415 - Triton may be absent

    plan = Plan(options, weighted=False)
    made = Batch(prediction, target, offsets, None, plan)
    factors = torch.ones(len(plan.specs), made.series, dtype=torch.float64, device=made.device)
    return partial(made.launch, factors, sums=True, slopes=options.gradients)


def by_modules(batch: Sides, options: ScoreOptions) -> None:
    prediction, target, offsets = batch
    modules = [spec.module() for spec in options.losses]
    for series in range(min(len(offsets) - 1, SAMPLE)):
        own = slice(int(offsets[series]), int(offsets[series + 1]))
        for module in modules:
            p = prediction[own].clone().requires_grad_(options.gradients)
            loss = module(p, target[own])
            if options.gradients:
                loss.backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    console, repeats, dry = Console(width=120), arguments.repeats, arguments.dry_run
    if not dry and not torch.cuda.is_available():
        console.print("torch sees no CUDA device, so there is nothing to measure.")
        return
    device = torch.device("cpu" if dry else "cuda")
    end = time.monotonic() + arguments.seconds
    if dry:
        torch.set_num_threads(1)
    before = resident()
    ceiling = bandwidth(device, repeats, 1 << (20 if dry else 30))
    opened = resident()
    name = "a dry run, on the CPU" if dry else torch.cuda.get_device_name()
    table = Table(
        *("series", "dtype", "losses", "gradients", "launch ms", "G/s", "share"),
        *("call ms", "plain / call", "modules / call"),
        title=f"{name}, a copy: {ceiling / 1e9:.0f} GB/s = 1.0",
    )
    left_out = 0
    kernel = plain_kernel if dry else kernel_for(device)
    for label, losses in islice(sets(), 3 if dry else None):
        for shape, lengths in shapes(small=dry).items():
            for dtype in (torch.float32, torch.float64):
                if time.monotonic() > end:
                    left_out += 2
                    continue
                batch = sides(lengths, dtype, device)
                scales = torch.ones(len(lengths), dtype=torch.float64, device=device)
                for gradients in (False, True):
                    options = ScoreOptions(losses, gradients=gradients)
                    arguments_of = *batch, options, None, scales
                    launch = on_device(launch_of(kernel, batch, options, scales), device, repeats)
                    call = seconds(partial(kernel, *arguments_of), device, repeats)
                    plain = seconds(partial(plain_kernel, *arguments_of), device, 3)
                    ratios = [f"{plain / call:.1f}"]
                    if {spec.name for spec in losses} <= set(DEFAULT_LOSSES):
                        loop = seconds(partial(by_modules, batch, options), device, 1)
                        loop *= len(lengths) / min(len(lengths), SAMPLE)
                        ratios.append(f"{loop / call:.0f}")
                    n = len(batch[0])
                    moved = n * dtype.itemsize * (2 + len(losses) * gradients)
                    table.add_row(
                        *(shape, str(dtype).removeprefix("torch."), label),
                        "yes" if gradients else "no",
                        *(f"{launch * 1e3:.3f}", f"{n / launch / 1e9:.2f}"),
                        *(f"{moved / launch / ceiling:.2f}", f"{call * 1e3:.3f}", *ratios),
                    )
    console.print(table)
    if left_out:
        console.print(f"{left_out} rows were left out, as the time was over.")
    console.print(
        f"Memory of the host: {before:.0f} MiB before the device was opened, {opened:.0f} after, "
        f"{resident():.0f} with all kernels of this table loaded."
    )


if __name__ == "__main__":
    main()

"""The CPU kernel against a floor: a loop that reads both inputs and writes one output.

The floor is the faster of a compiled loop and numpy's addition. Ratios are floor time / kernel
time, one thread, medians of interleaved runs: 1.0 is as fast as the memory. ``sweep`` is the
compiled loop with outputs that exist; ``call`` is the whole kernel as the service calls it. A case
without a gradient writes nothing, so ``reading`` holds its call against a loop that only reads.

    python bench/kernel.py [--repeats 11]
"""

# ruff: noqa: ANN001 - arrays throughout

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numba import njit
from rich.console import Console
from rich.table import Table

from loss_scoring.core import ALL_LOSSES, LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.compiled import Restrict
from loss_scoring.core.kernels import plain_kernel
from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel, Lanes, Plan

LANES = Lanes()
FULL = LossSpec("smape", block_denom_grad=False)


@njit(nogil=True, pipeline_class=Restrict)
def floor(p, y, out) -> None:
    for i in range(len(p)):
        out[i] = p[i] + y[i]


@njit(nogil=True, fastmath={"reassoc", "nsz"})
def reading(p, y) -> float:
    total = 0.0
    for i in range(len(p)):
        total += p[i] + y[i]
    return total


def shapes() -> dict[str, np.ndarray]:
    ragged = np.random.default_rng(0).lognormal(4.5, 1.5, 20_000).clip(1, 5000).astype(np.int64)
    regular = {"10k x 96": (10_000, 96), "10k x 336": (10_000, 336), "1k x 10k": (1000, 10_000)}
    regular["100k x 24"] = (100_000, 24)
    return {name: np.full(n, t) for name, (n, t) in regular.items()} | {"ragged": ragged}


def bare(p, y, offsets, specs, gradients) -> Callable[[], None]:
    """Return a call of the loop alone, its outputs made beforehand."""
    plan, n = Plan(ScoreOptions(specs, gradients), LANES), len(offsets) - 1
    columns = [
        *(np.zeros(n) for _ in plan.names),
        *(np.zeros(n, np.int64) for _ in plan.quotients),
        *(np.zeros(len(p), p.dtype) for _ in plan.slopes),
    ]
    known = np.empty((0, len(LOSSES)), np.int64)
    return partial(plan.run, p, y, offsets, 0, n, known, [None, None, *columns])


def medians(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(those) for name, those in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    kernel = FusedCpuKernel(1)
    table = Table(
        "series", "dtype", "floor M/s", "case", "sweep", "call", "reading", title="floor = 1.0"
    )
    together = Table("series", "dtype", "three passes / one: sweep", "call", "plain / fused: call")
    for dtype in (np.float32, np.float64):
        for shape, lengths in shapes().items():
            rng = np.random.default_rng(1)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            n = int(offsets[-1])
            p, y = (rng.normal(10, 5, n).astype(dtype) for _ in range(2))
            out = np.zeros(n, dtype)
            tensors = [torch.from_numpy(x) for x in (p, y, offsets)]
            cases: dict[str, Callable[[], object]] = {
                "loop": partial(floor, p, y, out),
                "numpy": partial(np.add, p, y, out=out),
                "reading": partial(reading, p, y),
            }
            for specs in [*((spec,) for spec in (*ALL_LOSSES, FULL)), ALL_LOSSES]:
                label = "all" if len(specs) > 1 else specs[0].name
                label += " full" if specs == (FULL,) else ""
                for gradients in (False, True):
                    if specs == (FULL,) and not gradients:
                        continue
                    name = label + (" + gradient" if gradients else "")
                    options = ScoreOptions(specs, gradients)
                    cases[f"sweep {name}"] = bare(p, y, offsets, specs, gradients)
                    cases[f"call {name}"] = partial(kernel, *tensors, options)
            times = medians(cases, repeats)
            best = min(times["loop"], times["numpy"])
            for name in (name[6:] for name in cases if name.startswith("sweep ")):
                ratios = [f"{best / times[f'{how} {name}']:.2f}" for how in ("sweep", "call")]
                if "gradient" not in name:
                    ratios.append(f"{times['reading'] / times[f'call {name}']:.2f}")
                table.add_row(shape, dtype.__name__, f"{n / best / 1e6:.0f}", name, *ratios)
            options = ScoreOptions(gradients=True)
            plain = medians({"plain": partial(plain_kernel, *tensors, options)}, min(repeats, 3))
            gain = [
                sum(times[f"{how} {name} + gradient"] for name in LOSSES)
                / times[f"{how} all + gradient"]
                for how in ("sweep", "call")
            ]
            slower = plain["plain"] / times["call all + gradient"]
            together.add_row(shape, dtype.__name__, *(f"{x:.2f}" for x in (*gain, slower)))
    console = Console(width=110)
    console.print(table)
    console.print(together)


if __name__ == "__main__":
    main()

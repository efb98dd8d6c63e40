"""The CPU kernel against a floor: a loop that reads both inputs and writes one output.

The floor is the faster of a compiled loop and numpy's addition. Ratios are floor time / kernel
time, one thread, medians of interleaved runs: 1.0 is as fast as the memory. ``call`` is the whole
kernel as the service calls it. A case without a gradient writes nothing, so ``reading`` holds its
call against a loop that only reads.

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

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.compiled import Restrict
from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel
from loss_scoring.core.kernels.plain import plain_kernel

DEFAULT = ScoreOptions().losses
FULL = LossSpec("smape", block_denom_grad=False)
ALONE = [(LossSpec(name),) for name in LOSSES]
TOGETHER = {
    "two": (DEFAULT[0], DEFAULT[2]),
    "three": DEFAULT,
    "twelve": tuple(map(LossSpec, LOSSES)),
}


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
    table = Table("series", "dtype", "floor M/s", "case", "call", "reading", title="floor = 1.0")
    together = Table("series", "dtype", "one by one / together", "two", "three", "plain / fused")
    for dtype in (np.float32, np.float64):
        for shape, lengths in shapes().items():
            rng = np.random.default_rng(1)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            n = int(offsets[-1])
            p, y = (rng.normal(10, 5, n).astype(dtype) for _ in range(2))
            out, scales = np.zeros(n, dtype), np.ones(len(lengths))
            cases: dict[str, Callable[[], object]] = {
                "loop": partial(floor, p, y, out),
                "numpy": partial(np.add, p, y, out=out),
                "reading": partial(reading, p, y),
            }
            sets = {specs[0].name: specs for specs in ALONE} | {"smape full": (FULL,)} | TOGETHER
            for label, specs in sets.items():
                for gradients in (False, True):
                    name = label + (" + gradient" if gradients else "")
                    options = ScoreOptions(specs, gradients)
                    cases[name] = partial(kernel, p, y, offsets, options, None, scales)
            times = medians(cases, repeats)
            best = min(times["loop"], times["numpy"])
            for name in list(cases)[3:]:
                beside = "" if "gradient" in name else f"{times['reading'] / times[name]:.2f}"
                floors = f"{best / times[name]:.2f}"
                table.add_row(shape, dtype.__name__, f"{n / best / 1e6:.0f}", name, floors, beside)
            tensors = [torch.from_numpy(x) for x in (p, y, offsets)]
            plain = partial(plain_kernel, *tensors, ScoreOptions(gradients=True))
            slower = medians({"plain": plain}, min(repeats, 3))["plain"] / times["three + gradient"]
            for kind in ("", " + gradient"):
                gains = [
                    sum(times[f"{spec.name}{kind}"] for spec in TOGETHER[label])
                    / times[f"{label}{kind}"]
                    for label in ("two", "three")
                ]
                cells = (f"{gain:.2f}" for gain in (*gains, slower))
                together.add_row(shape, dtype.__name__, kind or "losses", *cells)
    console = Console(width=110)
    console.print(table)
    console.print(together)


if __name__ == "__main__":
    main()

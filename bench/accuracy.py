"""How far a loss is from the exact mean of its terms, over random series.

A term is what a series of one element scores, so that no formula is repeated here; ``math.fsum``
adds them exactly. Their magnitudes lie between 1e-8 and 1e8, and half of the series are sorted by
error. A unit is one in the last place of the exact mean; a loss of n elements may be off by no more
than 4 + log2(n) of them (docs/decisions/0004).

    python bench/accuracy.py [--cases 1000000]
"""

import argparse
import itertools
import math

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.kernels.fused_cpu import fused_cpu_kernel

SERIES = 10_000
LONGEST = 1024
# The terms of bias cancel each other, and those of the rest are not all that there is to a loss.
NAMES = [name for name, loss in LOSSES.items() if loss.is_mean and name != "bias"]


def sides(rng: np.random.Generator, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and targets; the errors of every second series ascend."""
    size = offsets[-1]
    p, y = (rng.choice([-1, 1], size) * 10 ** rng.uniform(-8, 8, size) for _ in range(2))
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.where(owner % 2, np.abs(p - y), np.arange(size)), owner))
    return p[order], y[order]


def losses_of(name: str, p: np.ndarray, y: np.ndarray, offsets: np.ndarray) -> list[float]:
    """Return the loss of each series."""
    return fused_cpu_kernel(p, y, offsets, ScoreOptions((LossSpec(name),))).values[name].tolist()


def units_off(loss: float, terms: list[float]) -> float:
    """Return by how many units in the last place a mean is off; its own rounding is one half."""
    exact = math.fsum(terms) / len(terms)
    return abs(loss - exact) / math.ulp(exact)


def main() -> None:
    """Print the worst of each loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many series")
    batches = -(-parser.parse_args().cases // SERIES)
    rng, console = np.random.default_rng(15), Console()
    worst, closest = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, math.inf)
    for _ in track(range(batches), "series", console=console):
        lengths = np.exp(rng.uniform(0, math.log(LONGEST), SERIES)).astype(np.int64)
        offsets = np.concatenate([[0], lengths.cumsum()])
        p, y = sides(rng, offsets)
        for name in NAMES:
            terms = losses_of(name, p, y, np.arange(len(p) + 1))
            spans = itertools.pairwise(offsets.tolist())
            for (a, b), loss in zip(spans, losses_of(name, p, y, offsets), strict=True):
                off = units_off(loss, terms[a:b])
                worst[name] = max(worst[name], off)
                closest[name] = min(closest[name], 4 + math.log2(b - a) - off)
    table = Table("loss", "units off at most", "least distance to the bound")
    for name in NAMES:
        table.add_row(name, f"{worst[name]:.0f}", f"{closest[name]:.1f}")
    console.print(f"{batches * SERIES:,} series of 1 to {LONGEST} elements, float64")
    console.print(table)
    if min(closest.values()) < 0:
        raise SystemExit("a loss is further off than is promised")


if __name__ == "__main__":
    main()

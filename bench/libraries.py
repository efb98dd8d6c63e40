"""The same series scored by what a team would use instead, in this process.

- a loop over the loss modules, one call a series, as one would with those of darts (ours compute
  the same operations, bit for bit, so darts itself need not be installed here);
- utilsforecast.losses on the frame of a cross-validation; ours starts from that frame too.

    python bench/libraries.py [--repeats 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from utilsforecast import losses as theirs

from loss_scoring.core import MAELoss, MapeLoss, Ragged, ScoreOptions, SmapeLoss
from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel

SHAPES = {"10k x 24": (10_000, 24), "10k x 96": (10_000, 96), "1k x 1000": (1000, 1000)}


def by_loop(p: torch.Tensor, y: torch.Tensor, *, gradients: bool) -> None:
    modules = MAELoss(), MapeLoss(), SmapeLoss()
    for one, target in zip(p, y, strict=True):
        for module in modules:
            prediction = one.clone().requires_grad_(gradients)
            loss = module(prediction, target)
            if gradients:
                loss.backward()


def by_frame(frame: pd.DataFrame) -> None:
    for loss in (theirs.mae, theirs.mape, theirs.smape):
        loss(frame, ["model"])


def by_core(frame: pd.DataFrame, *, gradients: bool) -> None:
    lengths = frame["unique_id"].value_counts(sort=False).to_numpy()
    p = Ragged.from_lengths(torch.from_numpy(frame["model"].to_numpy().copy()), lengths.tolist())
    y = torch.from_numpy(frame["y"].to_numpy().copy())
    options = ScoreOptions(gradients=gradients)
    scores = FusedCpuKernel(1)(p.values, y, p.offsets, options)  # one thread, as the others
    columns = scores.values  # noqa: PD011 - a dictionary
    table = {name: column.numpy() for name, column in columns.items()}
    pd.DataFrame({"unique_id": frame["unique_id"].unique(), **table})


def median(run: Callable[[], object], repeats: int) -> float:
    run()
    seen = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seen.append(time.perf_counter() - start)
    return statistics.median(seen) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    table = Table(
        "series",
        "gradients",
        "core, from the frame, ms",
        "utilsforecast / core",
        "module loop / core",
        title="three losses, float64; times as long as core",
    )
    for name, (series, length) in SHAPES.items():
        rng = np.random.default_rng(0)
        p, y = rng.normal(100, 20, (2, series, length))
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.arange(series), length),
                "ds": np.tile(np.arange(length), series),
                "y": y.ravel(),
                "model": p.ravel(),
            }
        )
        for gradients in (False, True):
            ours = median(lambda f=frame, g=gradients: by_core(f, gradients=g), repeats)
            frames = "no gradients"
            if not gradients:
                frames = f"{median(lambda f=frame: by_frame(f), repeats) / ours:.1f}"
            sides = torch.from_numpy(p), torch.from_numpy(y)
            loop = median(lambda s=sides, g=gradients: by_loop(*s, gradients=g), 1)
            table.add_row(
                name, "yes" if gradients else "no", f"{ours:.1f}", frames, f"{loop / ours:.0f}"
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

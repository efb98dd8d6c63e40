"""Scoring a file of forecasts: the command line, polars and duckdb, as whole processes.

All three read the same file in the long form, compute MAE, MAPE and sMAPE of three models for each
series, and write Parquet. polars runs lazily on its streaming engine; neither it nor duckdb looks
for missing values, repeated rows or masked elements, which the command line does.

Rows of a series are together, or scattered: then the file holds all series of the first time, in an
order of chance, then all of the second. A run is a process; they are interleaved, and their answers
compared. Memory is the most that was resident. Where the machine is busy with other work, only the
times of the CPU can be compared.

    python bench/files.py [--rows 72 10500000] [--formats parquet csv] [--repeats 3]
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

MODELS = ("Naive", "ETS", "Theta")
STEPS = {72: 24}
"""Rows of a series, unless 28."""
ROWS_AT_ONCE = 1 << 20
LAYOUTS = ("together", "scattered")
LOSS_SCORING = str(Path(sys.executable).with_name("loss-scoring"))

POLARS = """
import sys
import polars as pl

source, output, models = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
scan = pl.scan_csv if source.endswith(".csv") else pl.scan_parquet
y = pl.col("y")
losses = [pl.len().alias("length")]
for model in models:
    difference = (y - pl.col(model)).abs()
    mape, smape = difference / y.abs(), difference / (y.abs() + pl.col(model).abs())
    terms = {"mae": difference, "mape": mape, "smape": smape}
    for name, term in terms.items():
        if name != "mae":
            term = pl.when(term.is_finite()).then(term).otherwise(0)
        losses.append(term.mean().alias(f"{model}_{name}"))
scan(source).group_by("unique_id").agg(losses).sink_parquet(output)
"""
DUCKDB = """
import sys
import duckdb

source, output, models = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
losses = []
for m in models:
    d = f'abs(y - "{m}")'
    mape = f'case when y = 0 then 0 else {d} / abs(y) end'
    smape = f'case when y = 0 and "{m}" = 0 then 0 else {d} / (abs(y) + abs("{m}")) end'
    for name, term in {"mae": d, "mape": mape, "smape": smape}.items():
        losses.append(f'avg({term}) as "{m}_{name}"')
columns = ", ".join(["unique_id", "count(*) as length", *losses])
query = f"select {columns} from '{source}' group by unique_id"
duckdb.sql(f"copy ({query}) to '{output}' (format parquet)")
"""


MEASURE = """
import os, sys, time

start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Run(NamedTuple):
    """What a process took."""

    seconds: float
    of_cpu: float
    mebibytes: float


def parts(rows: int, layout: str) -> Iterator[pa.Table]:
    """Yield the rows of a file."""
    rng = np.random.default_rng(rows)
    steps = STEPS.get(rows, 28)
    series = rows // steps
    if layout == "together":
        size = ROWS_AT_ONCE // steps
        for first in range(0, series, size):
            members = np.arange(first, min(first + size, series))
            yield _table(np.repeat(members, steps), np.tile(np.arange(steps), len(members)), rng)
    else:
        for step in range(steps):
            yield _table(rng.permutation(series), np.full(series, step), rng)


def _table(members: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> pa.Table:
    names = pc.utf8_lpad(pa.array(members).cast(pa.string()), 8, "0")
    y = rng.poisson(3.0, len(members)).astype(float)
    days = np.datetime64("2026-01-01", "D") + steps
    columns = {
        "unique_id": pc.binary_join_element_wise("store", names, "-"),
        "ds": pa.array(days.astype("datetime64[us]")),
        "y": y,
    }
    for model in MODELS:
        columns[model] = (y + rng.normal(0, 1, len(y))).round(3)
    return pa.table(columns)


def write(path: Path, rows: int, layout: str) -> None:
    """Write a file of forecasts."""
    tables = parts(rows, layout)
    first = next(tables)
    make = pa.csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
    with make(str(path), first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def commands(source: Path, layout: str, folder: Path) -> dict[str, tuple[list[str], Path]]:
    """Return what to run, and what it writes."""
    outputs = {name: folder / f"{name}.parquet" for name in ("loss-scoring", "polars", "duckdb")}
    score = [LOSS_SCORING, "score", str(source), "-o", str(outputs["loss-scoring"])]
    made = {"loss-scoring": [*score, *(["--sort"] if layout == "scattered" else [])]}
    for name, code in (("polars", POLARS), ("duckdb", DUCKDB)):
        made[name] = [sys.executable, "-c", code, str(source), str(outputs[name]), ",".join(MODELS)]
    return {name: (command, outputs[name]) for name, command in made.items()}


def run(command: list[str]) -> Run:
    """Run a process to its end, from one that is so small that its memory does not count."""
    said = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, text=True, check=False
    )
    if said.returncode:
        raise SystemExit(f"{command}: {said.stderr}")
    return Run(*map(float, said.stdout.split()))


def compare(outputs: dict[str, Path]) -> None:
    """End unless all three computed the same."""
    ours = pq.read_table(outputs["loss-scoring"])
    for peer in ("polars", "duckdb"):
        theirs = pq.read_table(outputs[peer]).sort_by("unique_id")
        for model in MODELS:
            mine = ours.filter(pc.equal(ours["model"], model)).sort_by("unique_id")
            names = [side["unique_id"].cast(pa.string()) for side in (mine, theirs)]
            same = names[0] == names[1]
            for loss in ("mae", "mape", "smape"):
                pair = mine[loss].to_numpy(), theirs[f"{model}_{loss}"].to_numpy()
                same = same and np.allclose(*pair, rtol=1e-12, atol=1e-15)
            if not same:
                raise SystemExit(f"{peer} computes another loss of {model}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[72, 10_500_000])
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv"])
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    peers = ", ".join(f"{name} {version(name)}" for name in ("polars", "duckdb"))
    peers = [f"{name} {version(name)}" for name in ("polars", "duckdb")]
    table = Table(title="s, s of CPU, MiB; medians; ratios to the faster of the others")
    for heading in ("rows", "format", "series", "loss-scoring", *peers, "s", "s of CPU"):
        table.add_column(heading)
    shapes = [(r, f, o) for r in options.rows for f in options.formats for o in options.layouts]
    for rows, ending, layout in shapes:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / f"forecasts.{ending}"
            write(source, rows, layout)
            made = commands(source, layout, Path(name))
            runs: dict[str, list[Run]] = {program: [] for program in made}
            for repeat in range(1 + options.repeats):
                for program, (command, _) in made.items():
                    runs[program].append(run(command))
                if repeat == 0:  # it reads the file into the page cache
                    compare({program: output for program, (_, output) in made.items()})
                    runs = {program: [] for program in made}
        seconds, of_cpu, memory = (
            {p: statistics.median(column) for p, column in zip(runs, columns, strict=True)}
            for columns in zip(*(zip(*runs[p], strict=True) for p in runs), strict=True)
        )
        cells = [f"{seconds[p]:.2f} {of_cpu[p]:.2f} {memory[p]:.0f}" for p in runs]
        for measured in (seconds, of_cpu):
            best = min(measured[peer] for peer in ("polars", "duckdb"))
            cells.append(f"{measured['loss-scoring'] / best:.2f}")
        table.add_row(f"{rows:,}", ending, layout, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""Small requests: the service against the least they can cost, and against one tuned by hand.

Four servers answer the same requests in turn, round by round: ours; a bare app on the same uvicorn
that does the work and nothing else, and one that does nothing (bench/bare.py); a FastAPI service
tuned by hand (bench/peers/tuned_app.py). All of them run on one core, and what sends on another.
Numbers are doubles, and every answer is compared with `core.score` before it is timed.

The second ratio is of the servers' time of their core for a request. On an idle machine both say
the same, unless what sends is the limit; beside other work only the second one means much. A target
is met if both reach it.

    python bench/small.py [--rounds 5] [--seconds 0.7]
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from http_paths import ARROW, HERE, JSON, Server, free_port, server
from load import Client, Load
from peers import (
    LOSSES,
    Answer,
    Request,
    Workload,
    arrow_load,
    as_it_is,
    awkward,
    busy,
    check,
    post,
    read_arrow,
    show,
    spread,
)
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from loss_scoring.core import Ragged, score

OURS, BARE, EMPTY, TUNED = "ours", "bare app", "empty app", "tuned FastAPI"
QUIET = ["--log-level", "warning"]
PLAIN = [
    *("--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--no-server-header", "--no-proxy-headers"),
]
WARM_UP_S = 0.3


@dataclass(frozen=True)
class Case:
    """A workload in one format, and how often ours should answer for each answer of an app."""

    workload: Workload
    headers: Mapping[str, str]
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{'JSON' if self.headers is JSON else 'Arrow'} {self.workload.title}"

    def load(self, url: str, request: Request) -> Load:
        if self.headers is ARROW:
            return arrow_load(url, request)
        return Load(url, as_it_is(request), JSON)

    def read(self, answer: bytes) -> Answer:
        return read_arrow(answer) if self.headers is ARROW else json.loads(answer)


FEW = Workload("8 x 24", 8, 24, connections=32, seconds=0)
MORE = Workload("256 x 96 + gradients", 256, 96, connections=8, seconds=0, gradients=True)
CASES = (
    Case(FEW, JSON, {BARE: 0.75, TUNED: 2}),
    Case(FEW, ARROW, {BARE: 0.7, TUNED: 1.6}),
    Case(MORE, JSON),
    Case(MORE, ARROW, {TUNED: 1.4}),
)


class Run(NamedTuple):
    """What a server did in one round: requests per second, and its time of a core for each."""

    rate: float
    core_s: float


@contextlib.contextmanager
def servers(core: int) -> Iterator[dict[str, Server]]:
    """Run all servers on one core."""
    commands = {
        OURS: (["loss-scoring", "serve", *QUIET], "/readyz"),
        BARE: (["uvicorn", "bare:app", *QUIET, *PLAIN], "/"),
        TUNED: (["uvicorn", "tuned_app:app", "--app-dir", "peers", *QUIET, *PLAIN], "/livez"),
    }
    cores = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        os.sched_setaffinity(0, {core})  # where the parent is, processes begin and stay
        running = {
            name: stack.enter_context(server(command, path, free_port()))
            for name, (command, path) in commands.items()
        }
        os.sched_setaffinity(0, cores)
        yield {
            OURS: running[OURS],
            BARE: running[BARE],
            EMPTY: running[BARE],
            TUNED: running[TUNED],
        }


def expected(request: Request) -> Answer:
    p, y = (
        Ragged.from_series([torch.tensor(x[side], dtype=torch.float64) for x in request["series"]])
        for side in ("prediction", "target")
    )
    scores = score(p, y, LOSSES, gradients=request["gradients"])
    cuts = p.offsets[1:-1]
    return {
        "losses": scores.arrays()[0],
        "gradients": {name: np.split(flat, cuts) for name, flat in scores.arrays()[2].items()},
    }


def measure(client: Client, at: Server, load: Load) -> Run:
    clock = ~at.pid << 3 | 2  # clock_getcpuclockid(3), which Python lacks
    before = time.clock_gettime(clock)
    seen = client.run(load)
    return Run(seen.rate, (time.clock_gettime(clock) - before) / len(seen.seconds))


def rounds(
    client: Client, running: Mapping[str, Server], case: Case, count: int, seconds: float
) -> dict[str, list[Run]]:
    """Return the runs of each server, all of which take their turn in every round."""
    requests = awkward(), case.workload.request()
    loads = {}
    for name, at in running.items():
        url = at.url + ("/empty" if name == EMPTY else "/score")
        for request in requests:
            load = case.load(url, request)
            if name != EMPTY:
                answer = case.read(post(load.url, load.body, dict(case.headers)))
                check(request, answer, expected(request))
        loads[name] = replace(load, connections=case.workload.connections, seconds=seconds)
        client.run(replace(loads[name], seconds=WARM_UP_S))
    runs: dict[str, list[Run]] = {name: [] for name in running}
    order = list(running)
    for _ in range(count):
        for name in order:
            runs[name].append(measure(client, running[name], loads[name]))
        order.append(order.pop(0))
    return runs


def add_rows(table: Table, case: Case, runs: Mapping[str, list[Run]]) -> None:
    for name, seen in runs.items():
        rate = statistics.median(run.rate for run in seen)
        core_s = statistics.median(run.core_s for run in seen)
        both = list(zip(runs[OURS], seen, strict=True))
        rates = [ours.rate / it.rate for ours, it in both]
        times = [it.core_s / ours.core_s for ours, it in both]
        ratios = ["", ""] if name == OURS else [spread(rates), spread(times)]
        target = case.targets.get(name)
        least = min(map(statistics.median, (rates, times)))
        met = "" if target is None else "yes" if least >= target else "no"
        table.add_row(
            *(case.title, name, show(rate), ratios[0], show(core_s * 1e6), ratios[1]),
            *(f"{target or ''}", met),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    arguments = parser.parse_args()
    os.chdir(HERE)
    table = Table(
        "request", "server", "requests /s", "ours / it", "core µs", "it / ours", "target", "met",
        box=MARKDOWN,
    )  # fmt: skip
    print(f"Busy with other work before the servers were started: {100 * busy():.0f} %.")
    cores = sorted(os.sched_getaffinity(0))
    with servers(cores[0]) as running:
        os.sched_setaffinity(0, {cores[-1]})
        client = Client(1)
        for case in CASES:
            runs = rounds(client, running, case, arguments.rounds, arguments.seconds)
            add_rows(table, case, runs)
        client.close()
    Console(width=160).print(table)


if __name__ == "__main__":
    main()

"""The service over HTTP against its ceilings: apps on the same server that do no work.

Starts the service and the ceilings (bench/ceilings.py), each in its own process with the same
uvicorn settings, sends the same loads to both in turn, and prints medians over the repeats.

    python bench/http_paths.py [--repeats 5] [--seconds 2]
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from load import Client, Latencies, Load
from rich.console import Console
from rich.table import Table

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
JSON = {"Content-Type": "application/json"}
HERE = Path(__file__).parent
START_S = 300
"""Without numba's cache the service compiles its loops first."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server(NamedTuple):
    """A server that answers."""

    url: str
    pid: int


@contextlib.contextmanager
def server(command: list[str], path: str, port: int) -> Iterator[Server]:
    """Run a server until it answers; end it by its pid."""
    program = str(Path(sys.executable).with_name(command[0]))
    running = subprocess.Popen([program, *command[1:], "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url + path, timeout=1).close()  # noqa: S310 - our own
                break
            if running.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {running.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not answer within {START_S} s")
            time.sleep(0.1)
        yield Server(url, running.pid)
    finally:
        running.terminate()
        running.wait(30)


def arrow_body(series: int, length: int, dtype: type = np.float32) -> bytes:
    rng = np.random.default_rng(0)
    sides = {}
    for side in ("prediction", "target"):
        values = pa.array(rng.normal(10, 5, series * length).astype(dtype))
        offsets = np.arange(series + 1, dtype=np.int32) * length
        sides[side] = pa.ListArray.from_arrays(offsets, values)
    batch = pa.record_batch(sides)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def json_body(series: int, length: int, **options: object) -> bytes:
    rng = np.random.default_rng(0)
    rows = rng.normal(100, 20, (2, series, length)).round(3).tolist()
    both = zip(*rows, strict=True)
    return json.dumps(
        {**options, "series": [{"prediction": p, "target": y} for p, y in both]}
    ).encode()


def interleave(client: Client, loads: dict[str, Load], repeats: int) -> dict[str, list[Latencies]]:
    seen: dict[str, list[Latencies]] = {name: [] for name in loads}
    for load in loads.values():
        client.run(Load(**{**vars(load), "seconds": 0.5}))
    for _ in range(repeats):
        for name, load in loads.items():
            seen[name].append(client.run(load))
    return seen


def ratio(ours: list[Latencies], ceiling: list[Latencies]) -> tuple[float, float, float]:
    each = [a.rate / b.rate for a, b in zip(ours, ceiling, strict=True)]
    return statistics.median(each), min(each), max(each)


def rates(table: Table, what: str, loads: dict[str, Load], targets: dict[str, float], seen) -> None:  # noqa: ANN001
    for ceiling, target in targets.items():
        middle, low, high = ratio(seen[what], seen[ceiling])
        rate = statistics.median(run.rate for run in seen[what])
        top = statistics.median(run.rate for run in seen[ceiling])
        size = max(len(loads[what].body) / 1e6, 0)
        table.add_row(
            what, ceiling, f"{size:.3g}", f"{rate:.0f}" if rate > 100 else f"{rate:.1f}",
            f"{top:.0f}" if top > 100 else f"{top:.1f}",
            f"{middle:.2f}", f"{low:.2f}-{high:.2f}", f"{target}",
            "yes" if middle >= target else "no",
        )  # fmt: skip


def throughput(client: Client, ours: str, bare: str, repeats: int, seconds: float) -> Table:
    table = Table(
        "path", "ceiling", "MB", "ours /s", "ceiling /s", "ratio", "spread", "target", "met",
        title="requests per second against ceilings on the same server",
    )  # fmt: skip

    def group(what: str, load: Load, ceilings: dict[str, tuple[str, float]]) -> None:
        loads = {what: load}
        for name, (path, _) in ceilings.items():
            loads[name] = Load(**{**vars(load), "url": bare + path})
        seen = interleave(client, loads, repeats)
        rates(table, what, loads, {name: target for name, (_, target) in ceilings.items()}, seen)

    small = json_body(8, 24)
    group(
        "JSON 8 x 24, 32 connections",
        Load(f"{ours}/score", small, JSON, connections=32, seconds=seconds),
        {"empty Starlette route": ("/empty", 0.5), "FastAPI awaiting its body": ("/fastapi/", 1.2)},
    )
    for megabytes in (10, 50):
        series = megabytes * 1_000_000 // (96 * 8)
        body = arrow_body(series, 96)
        for losses in ("mae", "mae,mape,smape"):
            group(
                f"Arrow {megabytes} MB, {losses}",
                Load(f"{ours}/score?losses={losses}", body, ARROW, seconds=seconds),
                {"ASGI into one buffer": ("/sink", 0.8)},
            )
            group(
                f"Arrow {megabytes} MB, {losses} + gradients",
                Load(f"{ours}/score?losses={losses}&gradients=true", body, ARROW, seconds=seconds),
                {"ASGI echo, joined": ("/echo", 1.3)},
            )
    return table


def mixed(client: Client, ours: str, bare: str, repeats: int, seconds: float) -> Table:
    table = Table(
        "server", "beside", "p50 ms", "p99 ms", "p99 / unloaded", "target", "stall ms", "target",
        title="small requests (JSON 8 x 24, 4 connections, 500 /s) beside one large client",
    )  # fmt: skip
    arrow, large_json = arrow_body(50_000_000 // 768, 96), json_body(17_000, 100)

    def longest_stall(server: str) -> float:
        with urllib.request.urlopen(server + "/lag") as answer:  # noqa: S310 - our own
            return float(answer.read())

    def rows(server: str, small: str, large: dict[str, Load | None]) -> None:
        alone = 0.0
        load = Load(small, json_body(8, 24), JSON, connections=4, pause=0.008, seconds=seconds)
        for name, beside in large.items():
            p50, p99, stall = [], [], []
            for _ in range(repeats):
                background = client.start(beside) if beside else None
                time.sleep(0.2)
                if server == "ours":
                    longest_stall(ours)
                seen = client.run(load)
                p50.append(seen.quantile(0.5) * 1e3)
                p99.append(seen.quantile(0.99) * 1e3)
                if server == "ours":
                    stall.append(longest_stall(ours))
                if background:
                    background.result()
            middle = statistics.median(p99)
            alone = alone or middle
            table.add_row(
                server, name, f"{statistics.median(p50):.2f}", f"{middle:.2f}",
                f"{middle / alone:.1f}", "<= 5" if server == "ours" else "",
                *((f"{max(stall):.1f}", "<= 20") if stall else ()),
            )  # fmt: skip

    def beside(url: str, body: bytes, headers: dict[str, str]) -> Load:
        return Load(url, body, headers, seconds=seconds + 0.5)

    rows(
        "ours", f"{ours}/score",
        {
            "nothing": None,
            "Arrow 50 MB": beside(f"{ours}/score", arrow, ARROW),
            "Arrow 50 MB + gradients": beside(f"{ours}/score?gradients=true", arrow, ARROW),
            "JSON 30 MB": beside(f"{ours}/score", large_json, JSON),
        },
    )  # fmt: skip
    # What the machine and the server alone do to small requests, with no work at all.
    rows(
        "bare", f"{bare}/empty",
        {
            "nothing": None,
            "50 MB read": beside(f"{bare}/sink", arrow, ARROW),
            "50 MB echoed": beside(f"{bare}/echo", arrow, ARROW),
        },
    )  # fmt: skip
    return table


def scaling(client: Client, ours: str, seconds: float) -> Table:
    table = Table(
        "series", "length", "connections", "requests /s", "million elements /s", "p50 ms", "p99 ms",
        title="Arrow, float32, three losses, no gradients",
    )  # fmt: skip
    shapes = [(n, 24, 1) for n in (10, 100, 1000, 10_000, 100_000)]
    shapes += [(1000, length, 1) for length in (100, 1000, 10_000)]
    shapes += [(1000, 24, connections) for connections in (4, 16, 64)]
    for series, length, connections in shapes:
        body = arrow_body(series, length)
        load = Load(f"{ours}/score", body, ARROW, connections=connections, seconds=seconds)
        seen = client.run(load)
        table.add_row(
            str(series), str(length), str(connections), f"{seen.rate:.0f}",
            f"{seen.rate * series * length / 1e6:.1f}", f"{seen.median * 1e3:.2f}",
            f"{seen.quantile(0.99) * 1e3:.2f}",
        )  # fmt: skip
    return table


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory(client: Client) -> Table:
    table = Table(
        "request", "body MB", "before MB", "peak MB", "peak - before / body",
        title="resident memory of a fresh server while 10 such requests pass, one at a time",
    )  # fmt: skip
    arrow = arrow_body(50_000_000 // 768, 96)
    cases = {
        "Arrow": ("", arrow, ARROW),
        "Arrow + gradients": ("?gradients=true", arrow, ARROW),
        "JSON": ("", json_body(17_000, 100), JSON),
    }
    for name, (query, body, headers) in cases.items():
        with server(
            ["loss-scoring", "serve", "--log-level", "warning"], "/readyz", free_port()
        ) as running:
            before = peak = resident(running.pid)
            load = Load(f"{running.url}/score{query}", body, headers, requests=10, seconds=30)
            sending = client.start(load)
            while not sending.done():
                peak = max(peak, resident(running.pid))
                time.sleep(0.005)
            sending.result()
        size = len(body)
        table.add_row(
            name, f"{size / 1e6:.0f}", f"{before / 1e6:.0f}", f"{peak / 1e6:.0f}",
            f"{(peak - before) / size:.2f}",
        )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", choices=("rates", "mixed", "scaling", "memory"))
    arguments = parser.parse_args()
    os.chdir(HERE)
    client = Client(3)
    console = Console(width=130)
    parts: dict[str, Callable[[str, str], Table]] = {
        "rates": lambda ours, bare: throughput(
            client, ours, bare, arguments.repeats, arguments.seconds
        ),
        "mixed": lambda ours, bare: mixed(client, ours, bare, arguments.repeats, arguments.seconds),
        "scaling": lambda ours, _: scaling(client, ours, arguments.seconds),
        "memory": lambda *_: memory(client),
    }
    bare_options = ["--no-access-log", "--no-server-header", "--log-level", "warning"]
    with (
        server(["loss-scoring", "serve", "--log-level", "warning"], "/readyz", free_port()) as ours,
        server(["python", "watched.py"], "/readyz", free_port()) as watched,
        server(["uvicorn", "ceilings:app", *bare_options], "/fastapi/docs", free_port()) as bare,
    ):
        for name, part in parts.items():
            if arguments.only in (None, name):
                console.print(part(watched.url if name == "mixed" else ours.url, bare.url))
                console.print()
    client.close()


if __name__ == "__main__":
    main()

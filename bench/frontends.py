"""One process against a supervised worker with one and two front ends, on the same loads.

    python bench/frontends.py [--repeats 3] [--seconds 2]

All servers run at once and take turns, so that they meet the same machine.
"""

import argparse
import contextlib
import os
import statistics

from http_paths import ARROW, HERE, JSON, arrow_body, free_port, interleave, json_body, server
from load import Client, Load
from rich.console import Console
from rich.table import Table

SERVERS = {"one process": 0, "--frontends 1": 1, "--frontends 2": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    os.chdir(HERE)
    series = 10_000_000 // 768
    loads = {
        "JSON, 1 x 24, 32 connections": ("", json_body(1, 24), JSON, 32),
        "JSON, 1k x 96, 4 connections": ("", json_body(1000, 96), JSON, 4),
        "Arrow, 10 MB, 1 connection": ("", arrow_body(series, 96), ARROW, 1),
        "Arrow, 50 MB, 1 connection": ("", arrow_body(5 * series, 96), ARROW, 1),
        "Arrow, 10 MB, 4 connections": ("", arrow_body(series, 96), ARROW, 4),
        "Arrow, 10 MB + gradients, 1": ("?gradients=true", arrow_body(series, 96), ARROW, 1),
    }
    table = Table("requests /s (p50 ms)", *SERVERS, title="medians; three losses")
    client = Client(1)
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(
                server(
                    ["loss-scoring", "serve", "--log-level", "warning", "--frontends", str(count)],
                    "/readyz",
                    free_port(),
                )
            ).url
            for name, count in SERVERS.items()
        }
        for what, (query, body, headers, connections) in loads.items():
            seen = interleave(
                client,
                {
                    name: Load(
                        f"{url}/score{query}",
                        body,
                        headers,
                        connections=connections,
                        seconds=arguments.seconds,
                    )
                    for name, url in urls.items()
                },
                arguments.repeats,
            )
            cells = []
            for runs in seen.values():
                rate = statistics.median(run.rate for run in runs)
                p50 = statistics.median(run.median for run in runs)
                cells.append(
                    f"{rate:.0f} ({p50 * 1e3:.1f})"
                    if rate > 100
                    else f"{rate:.1f} ({p50 * 1e3:.1f})"
                )
            table.add_row(what, *cells)
    client.close()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

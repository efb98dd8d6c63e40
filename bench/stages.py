"""What one request costs, stage by stage, for real forecasts in JSON and in Arrow.

Posts the same series in both formats to a running service, in turn, and prints the median of each
stage of Server-Timing in milliseconds.

    python bench/stages.py FORECASTS.arrow [--url http://127.0.0.1:8000] [--repeats 30]
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.ipc
from rich.console import Console
from rich.table import Table

STAGES = ("decode", "queue", "compute", "encode", "total")


def requests(table: pa.Table) -> dict[str, tuple[bytes, dict[str, str], str]]:
    """Return body, query and content type by name."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    series = table.to_pylist()
    made = {}
    for gradients in (False, True):
        suffix = " + gradients" if gradients else ""
        document = {"series": series, "missing": "skip", "gradients": gradients}
        made[f"JSON{suffix}"] = (json.dumps(document).encode(), {}, "application/json")
        query = {"missing": "skip", "gradients": str(gradients).lower()}
        made[f"Arrow{suffix}"] = (
            sink.getvalue().to_pybytes(),
            query,
            "application/vnd.apache.arrow.stream",
        )
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("forecasts", type=Path, help="an Arrow file: id, target, prediction")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    table = pa.ipc.open_file(arguments.forecasts).read_all()
    made = requests(table)
    timings: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in made}
    with httpx.Client(base_url=arguments.url, timeout=60) as client:
        for _ in range(arguments.repeats):
            for name, (body, query, media_type) in made.items():
                answer = client.post(
                    "/score", content=body, params=query, headers={"Content-Type": media_type}
                )
                answer.raise_for_status()
                for part in answer.headers["server-timing"].split(", "):
                    stage, value = part.split(";dur=")
                    timings[name][stage].append(float(value))
    elements = sum(len(one) for one in table["target"].to_pylist())
    shown = Table(
        "request",
        "body KB",
        *(f"{stage} ms" for stage in STAGES),
        title=f"{len(table)} series, {elements} elements, median of {arguments.repeats}",
    )
    for name, (body, *_) in made.items():
        medians = [f"{statistics.median(timings[name][stage]):.2f}" for stage in STAGES]
        shown.add_row(name, f"{len(body) / 1e3:.0f}", *medians)
    Console(width=100).print(shown)


if __name__ == "__main__":
    main()

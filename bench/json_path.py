"""A whole JSON request (parse, validate, score, encode) against orjson.loads of its body alone.

Interleaved in one process, without HTTP; medians, and the spread of the ratio.

    python bench/json_path.py [--repeats 9]
"""

import argparse
import gc
import json as stdlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import orjson
import torch
from rich.console import Console
from rich.table import Table

from loss_scoring.core import kernel_for
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.codec import encode
from loss_scoring.service.codecs.request import ScoreRequest

SHAPES = {
    "10k x 48": (10_000, 48),
    "1k x 480": (1000, 480),
    "30k x 16": (30_000, 16),
    "400k x 1": (400_000, 1),
}


def body_of(
    shape: tuple[int, int], *, digits: int | None = 3, ids: str = "", channels: int = 0
) -> bytes:
    rng = np.random.default_rng(0)
    sides = rng.normal(100, 20, (2, *shape))
    sides = sides if digits is None else sides.round(digits)
    rows = sides.reshape(2, shape[0], -1, channels) if channels else sides
    series = [
        {"prediction": p, "target": y} | ({"id": f"{ids}-{i}"} if ids else {})
        for i, (p, y) in enumerate(zip(*rows.tolist(), strict=True))
    ]
    if ids.isascii():
        return orjson.dumps({"series": series})
    return stdlib.dumps({"series": series}, separators=(",", ":")).encode()  # escapes what is not


def bodies_of(shape: tuple[int, int]) -> Iterator[tuple[str, bytes]]:
    plain = body_of(shape)
    yield "3 decimals", plain
    yield "3 decimals, newline", plain + b"\n"
    yield "3 decimals, ids", body_of(shape, ids="store")
    yield "3 decimals, escaped ids", body_of(shape, ids="caf\u00e9")
    yield "17 digits", body_of(shape, digits=None)
    if shape[1] % 4 == 0:
        yield "17 digits, 4 channels", body_of(shape, digits=None, channels=4)


def times(runs: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    seen: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, mine in zip(runs, seen, strict=True):
            start = time.perf_counter()
            run()
            mine.append(time.perf_counter() - start)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    gc.freeze()  # as the service does, or full collections would be most of what is measured
    kernel = kernel_for(torch.device("cpu"))
    table = Table(
        "series", "numbers", "MB", "loads ms", "decode ms", "request ms", "request / loads",
        "spread",
        title="orjson.loads = 1.0; target 0.5",
    )  # fmt: skip
    for name, shape in SHAPES.items():
        for label, body in bodies_of(shape):

            def decode(body: bytes = body) -> ScoreRequest:
                return json.decode(body, max_elements=1 << 30)

            def request(body: bytes = body) -> list[memoryview]:
                asked = decode(body)
                p, y = asked.prediction, asked.target
                return encode(asked, kernel(p.array, y.array, p.offsets, asked.options), "json")

            loads, decodes, wholes = times(
                [lambda body=body: orjson.loads(body), decode, request], repeats
            )
            ratios = [a / b for a, b in zip(wholes, loads, strict=True)]
            shown = [statistics.median(one) * 1e3 for one in (loads, decodes, wholes)]
            table.add_row(
                name, label, f"{len(body) / 1e6:.1f}", *(f"{ms:.1f}" for ms in shown),
                f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}",
            )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

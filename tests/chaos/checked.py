"""Requests whose every number is known beforehand, as JSON and Arrow, with gradients."""

import random
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
from traffic import ARROW, Answer, post
from wire import stream

SMALL, LARGE = (20, 50), (200, 200)
"""Most series, and most elements of each."""


@dataclass(frozen=True)
class Known:
    """What the answer must say."""

    ids: list[str]
    losses: list[float]
    lengths: list[int]

    def is_right(self, answer: Answer) -> bool:
        """Compare an answer element by element."""
        if answer.status != 200:
            return False
        if answer.headers["content-type"] == ARROW:
            table = pa.ipc.open_stream(answer.body).read_all()
            ids, losses = table["id"].to_pylist(), table["mae"].to_pylist()
            rows = table["mae_gradient"].combine_chunks()
            lengths, flat = rows.value_lengths().to_pylist(), rows.flatten().to_numpy()
        else:
            document = orjson.loads(answer.body)
            ids, losses = document["ids"], document["losses"]["mae"]
            rows = document["gradients"]["mae"]
            lengths, flat = list(map(len, rows)), np.concatenate(rows)
        want = np.repeat(1 / np.array(self.lengths), self.lengths)
        same = (ids, losses, lengths) == (self.ids, self.losses, self.lengths)
        return same and np.array_equal(flat, want)


def request_of(
    tag: int, rng: random.Random, *, large: bool = False, **headers: object
) -> tuple[bytes, Known]:
    """Return a request and what its answer must say; 300 KB on average if it is large."""
    series_most, length_most = LARGE if large else SMALL
    count = rng.randint(1, series_most)
    known = Known(
        [f"{tag}/{k}" for k in range(count)],
        [tag + k / 256 for k in range(count)],
        [rng.randint(1, length_most) for _ in range(count)],
    )
    rows = zip(known.ids, known.losses, known.lengths, strict=True)
    series = [{"id": i, "prediction": [v] * n, "target": [0.0] * n} for i, v, n in rows]
    if tag % 2:
        document = {"series": series, "losses": ["mae"], "gradients": True}
        return post(orjson.dumps(document), **headers), known
    body = stream(pa.Table.from_pylist(series))
    return post(body, ARROW, "losses=mae&gradients=true", **headers), known

"""The real forecasts of the examples, long as they are and nested; with them, awkward series."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parent.parent / "examples/data"
LONG = DATA / "forecasts.parquet"
REQUEST = DATA / "request.json"


def series_of_request() -> list[dict]:
    """Return the ragged series of the example request; null is a missing target."""
    return json.loads(REQUEST.read_bytes())["series"]


def nested() -> pa.Table:
    """Return one row a series of the model Theta, with ``id``, ``target`` and ``prediction``."""
    table = pq.read_table(LONG).combine_chunks()
    cutoffs = table["cutoff"].cast(pa.string())
    ids = pc.binary_join_element_wise(table["unique_id"], cutoffs, "|").to_numpy()
    starts = [0, *np.flatnonzero(ids[1:] != ids[:-1]) + 1]  # its series are together
    offsets = pa.array([*starts, len(ids)], pa.int32())

    def lists(name: str) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, table[name].combine_chunks())

    columns = {"id": pa.array(ids[starts]), "target": lists("y"), "prediction": lists("Theta")}
    return pa.table(columns)


def various() -> pa.Table:
    """Return these and the awkward ones."""
    return pa.concat_tables([nested(), awkward()])


def awkward(count: int = 300) -> pa.Table:
    """Return series of 1 to 2000 elements, among them missing targets, zeros and nothing but zeros."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(count):
        n = int(rng.choice([1, 6, 24, 360, 2000], p=[0.2, 0.3, 0.3, 0.15, 0.05]))
        y, p = (rng.normal(1, 5, n) * (rng.random(n) < 0.8) * (i % 10 > 0) for _ in range(2))
        target = [
            None if hole else value for hole, value in zip(rng.random(n) < 0.01, y, strict=True)
        ]
        rows.append({"id": str(i), "target": target, "prediction": p})
    schema = [("id", pa.string()), *((s, pa.list_(pa.float64())) for s in ("target", "prediction"))]
    return pa.Table.from_pylist(rows, pa.schema(schema))

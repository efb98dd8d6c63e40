"""Examples of requests and of an answer in OpenAPI; the tests run each."""

from string import Template
from typing import Any

BODIES: dict[str, Any] = {
    "smallest": {
        "summary": "Two series, the default losses",
        "value": {
            "series": [
                {"prediction": [102.0, 118.5], "target": [100.0, 120.0]},
                {"prediction": [0.5], "target": [0.0]},
            ]
        },
    },
    "everything": {
        "summary": "Every option; the second target has a missing value",
        "value": {
            "losses": ["mae", {"name": "huber", "delta": 1.5}],
            "gradients": True,
            "missing": "skip",
            "zero_division": "skip",
            "dtype": "float32",
            "series": [
                {"id": "store-1", "prediction": [102.0, 118.5], "target": [100.0, 120.0]},
                {"id": "store-2", "prediction": [7.0, 8.0, 9.0], "target": [7.5, None, 9.0]},
            ],
        },
    },
    "multivariate": {
        "summary": "One series of 2 steps x 3 channels",
        "value": {
            "gradients": True,
            "series": [
                {"prediction": [[1, 2, 3], [4, 5, 6]], "target": [[1, 2, 4], [4, 4, 6]]},
            ],
        },
    },
}

ANSWER: dict[str, Any] = {
    "ids": [0, 1],
    "lengths": [2, 1],
    "losses": {
        "mae": [1.75, 0.5],
        "mape": [0.01625, 0.0],
        "smape": [0.008095149137555265, 1.0],
    },
    "masked": {"mape": [0, 1], "smape": [0, 0]},
}
"""To the smallest body."""

_IN_ARROW = Template("""\
import httpx
import pyarrow as pa

table = pa.table({$columns
})
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema) as writer:
    writer.write_table(table)
answer = httpx.post(
    "http://127.0.0.1:8000/score",
    params={$options},
    content=sink.getvalue().to_pybytes(),
    headers={"Content-Type": "application/vnd.apache.arrow.stream"},
    timeout=60,
)
answer.raise_for_status()
scores = pa.ipc.open_stream(answer.content).read_all()
print(scores.to_pylist())
""")
_LISTS = """
    "id": ["store-1", "store-2"],
    "prediction": [[102.0, 118.5], [0.5]],
    "target": [[100.0, 120.0], [0.0]],"""
_LONG = """
    "unique_id": ["store-1", "store-1", "store-2"],
    "cutoff": ["2024-06", "2024-06", "2024-06"],
    "y": [100.0, 120.0, 0.0],
    "Naive": [102.0, 118.5, 0.5],
    "AutoETS": [101.0, 119.0, 0.0],"""

PROGRAMS = {
    "Arrow": _IN_ARROW.substitute(
        columns=_LISTS, options='"losses": "mae,smape", "gradients": "true"'
    ),
    "Arrow, long form": _IN_ARROW.substitute(
        columns=_LONG, options='"group_columns": "unique_id,cutoff", "losses": "mae,smape"'
    ),
}

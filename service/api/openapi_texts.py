"""What the OpenAPI description says in words and examples. The tests run every example."""

from collections.abc import Mapping
from typing import Any

REQUEST_EXAMPLES: dict[str, dict[str, Any]] = {
    "smallest": {
        "summary": "Two series, all losses",
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
            "losses": ["mae", {"name": "smape", "block_denom_grad": False}],
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

ARROW_SAMPLE = """\
import httpx
import pyarrow as pa

table = pa.table({
    "id": ["store-1", "store-2"],
    "prediction": [[102.0, 118.5], [0.5]],
    "target": [[100.0, 120.0], [0.0]],
})
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema) as writer:
    writer.write_table(table)
answer = httpx.post(
    "http://127.0.0.1:8000/score",
    params={"losses": "mae,smape", "gradients": "true"},
    content=sink.getvalue().to_pybytes(),
    headers={"Content-Type": "application/vnd.apache.arrow.stream"},
)
answer.raise_for_status()
scores = pa.ipc.open_stream(answer.content).read_all()
print(scores.to_pylist())
"""

LONG_SAMPLE = """\
import httpx
import pyarrow as pa

table = pa.table({
    "unique_id": ["store-1", "store-1", "store-2"],
    "cutoff": ["2024-06", "2024-06", "2024-06"],
    "y": [100.0, 120.0, 0.0],
    "Naive": [102.0, 118.5, 0.5],
    "AutoETS": [101.0, 119.0, 0.0],
})
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema) as writer:
    writer.write_table(table)
answer = httpx.post(
    "http://127.0.0.1:8000/score",
    params={"group_columns": "unique_id,cutoff", "losses": "mae,smape"},
    content=sink.getvalue().to_pybytes(),
    headers={"Content-Type": "application/vnd.apache.arrow.stream"},
)
answer.raise_for_status()
scores = pa.ipc.open_stream(answer.content).read_all()
print(scores.to_pylist())
"""

LONG_PARAMETERS: Mapping[str, str] = {
    "group_columns": (
        "Asks for the long form, a row an element: the columns, with commas between them, that "
        "together name a series. Text, numbers, dates or times, never null; the rows of a series "
        "may stand anywhere and keep their order. A column whose name has a comma cannot be named."
    ),
    "time_column": (
        "Of the long form: the column of times, never taken for a model. Where it is in the table, "
        "two rows of one series and time are refused."
    ),
    "target_column": "Of the long form: the column of actual values.",
    "prediction_columns": (
        "Of the long form: the columns of predictions, one a model. Default: all of numbers that "
        "are not named otherwise, but for an index, forecast steps such as `horizon`, prediction "
        "intervals such as AutoETS-lo-90 and quantiles. What was taken for none is listed in the "
        "answer as `left_out`."
    ),
    "exclude_columns": (
        "Of the long form: columns, with commas between them, that are no models, where "
        "prediction_columns names none."
    ),
    "duplicates": "Of the long form: what two rows of one series and time are.",
}

DESCRIPTION = (
    "Scores many series of (prediction, target): a loss per series and, on request, the gradient "
    "of each loss with respect to each predicted element. A series' answer is the same bits "
    "however requests are split or merged. The options of a JSON request are in its body, those "
    "of an Arrow request are query parameters. A body may have Content-Encoding gzip or zstd.\n\n"
    "An Arrow stream has a row a series, with lists; or, where `group_columns` says so, a row an "
    "element, with one column a model, each scored against the one target. The answer to the long "
    "form has a row a series and model: the group columns, `model`, `length`, one a loss, "
    "`<loss>_masked` and `<loss>_gradient`, whose elements are in the order of the rows. Series "
    "are in the order of their first rows, the models of a series together, in the order of their "
    "columns. Numbers are float where the target and all predictions are, double otherwise."
)

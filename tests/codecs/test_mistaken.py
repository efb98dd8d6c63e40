"""Bodies that are something else than they say, and frames sent as they are: what was meant is said."""

import io
import json as plain_json

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from streams import plain, read, write

from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.options import options_from_query
from loss_scoring.service.errors import Faults, InvalidError, UnreadableError

TABLE = pa.table({"unique_id": ["a"], "ds": [1], "y": [1.0], "A": [2.0]})


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("text", [b"unique_id,ds,y\r\na,1,2\r\n", "größe;wert\n1;2\n".encode()])
def test_csv_is_no_arrow(mark, text):
    with pytest.raises(UnreadableError, match="it is text, such as CSV; read it"):
        read(mark + text)


def file_of(kind, table=TABLE):
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    elif kind == "arrow file":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pyarrow.feather.write_feather(table, sink, version=2)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (file_of("parquet"), "Parquet file; read it, and send its table as an Arrow IPC stream"),
        (file_of("arrow file"), "an Arrow or Feather file, not a stream"),
        (file_of("feather"), "an Arrow or Feather file, not a stream"),
        (b"FEA1" + bytes(20), "a Feather file"),
        (b"\x1f\x8b\x08" + bytes(20), "Content-Encoding: gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "Content-Encoding: zstd"),
        (b'{"series": []}', "Content-Type: application/json"),
        (b' [{"y": 1}]', "Content-Type: application/json"),
        (b"unique_id,ds,y\n", "not an Arrow IPC stream"),
    ],
)
def test_bodies_that_are_no_stream(body, says):
    with pytest.raises(UnreadableError, match=says):
        read(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (write(TABLE), "Content-Type: application/vnd.apache.arrow.stream"),
        (file_of("parquet"), "it is a Parquet file"),
        (file_of("arrow file"), "it is an Arrow or Feather file"),
        (b"\x1f\x8b\x08" + bytes(20), "Content-Encoding: gzip"),
        (b"unique_id,ds,y\n", "line 1 column 1"),
    ],
)
def test_bodies_that_are_no_json(body, says):
    with pytest.raises(UnreadableError, match=says):
        json.decode(body, max_elements=99)


@pytest.mark.parametrize(
    ("columns", "query"),
    [
        ({}, "?group_columns=unique_id&target_column=y"),
        ({"cutoff": [1]}, "?group_columns=unique_id,cutoff&target_column=y"),
        ({"ds": None, "when": pa.array([1], pa.timestamp("ns"))},
         "?group_columns=unique_id&target_column=y&time_column=when"),
        ({"unique_id": None, "store & shop": ["x"]},
         "?group_columns=store%20%26%20shop&target_column=y"),
        ({"unique_id": None, "y": None, "id": [7], "target": [1], "prediction": [2.0]},
         "?group_columns=id&target_column=target"),
    ],
)  # fmt: skip
def test_a_long_form_that_names_no_group_columns(columns, query):
    made = {**{name: TABLE[name] for name in TABLE.column_names}, **columns}
    table = pa.table({name: column for name, column in made.items() if column is not None})
    with pytest.raises(InvalidError) as error:
        read(write(table))
    assert str(error.value).endswith(f"did you mean {query}")
    assert error.value.errors


def test_close_names_are_suggested():
    with pytest.raises(InvalidError) as error:
        read(write(plain(1, predictions=[1], Id=["a"], z=[1])))
    assert [fault.detail for fault in error.value.errors] == [
        "unknown column; did you mean 'prediction'?",
        "unknown column; did you mean 'id'?",
        "unknown column",
    ]
    faults = Faults()
    query = ["losss", "group_column", "zzz", "weight_co", "model"]
    options_from_query([(name, "") for name in query], faults)
    details = [fault.detail for fault in faults.first]
    assert details[0].startswith("unknown query parameter; did you mean 'losses'?; known are")
    assert "did you mean 'group_columns'?" in details[1]
    assert "did you mean" not in details[2]
    assert "did you mean 'weight_col'?" in details[3]
    assert "did you mean 'models'?" in details[4]
    assert ", weight_col" in details[4].partition("known are")[2]
    body = b'{"loses": ["mae"], "series": [{"predictions": [1], "target": [1], "zzz": 1}]}'
    with pytest.raises(InvalidError) as error:
        json.decode(body, max_elements=9)
    assert [(fault.pointer, fault.detail) for fault in error.value.errors] == [
        ("/loses", "unknown field; did you mean 'losses'?"),
        ("/series/0/predictions", "unknown field; did you mean 'prediction'?"),
        ("/series/0/zzz", "unknown field"),
        ("/series/0/prediction", "of series 0 must be a list of numbers, not absent"),
    ]


FRAME = pd.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "A": [1.0, 2.0]})


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "list"])
def test_frames_in_json(orient):
    frame = FRAME.to_dict("list") if orient == "list" else None
    body = FRAME.to_json(orient=orient).encode() if frame is None else orjson.dumps(frame)
    with pytest.raises(InvalidError, match="looks like a frame; did you mean"):
        json.decode(body, max_elements=9)


def test_one_series_in_json():
    with pytest.raises(InvalidError, match="looks like one series; did you mean"):
        json.decode(b'{"prediction": [1], "target": [2], "id": "a"}', max_elements=9)


@pytest.mark.parametrize(
    ("series", "says"),
    [
        ({"prediction": [1, 2], "target": [1]},
         "prediction (2 elements) and target (1 elements) of series shop-1 differ in shape"),
        ({"prediction": [1], "target": []},
         "of series shop-1 is empty: a series has at least one element"),
        ({"prediction": [1], "target": [None]}, "of series shop-1 is null; missing=skip leaves"),
        ({"prediction": ["1"], "target": [1]},
         "of series shop-1 must be a number or null, not a string"),
        ({"prediction": [10**400], "target": [1]}, "of series shop-1 is too large for float64"),
        ({"prediction": [[1], [1, 2]], "target": [1]}, "rows of series shop-1 must be equally long"),
    ],
)  # fmt: skip
def test_faults_name_the_series_in_json(series, says):
    body = {"series": [{"prediction": [1], "target": [1]}, {"id": "shop-1", **series}]}
    with pytest.raises(InvalidError) as error:
        json.decode(plain_json.dumps(body).encode(), max_elements=9)
    assert says in error.value.errors[0].detail
    assert error.value.errors[0].pointer.startswith("/series/1")


@pytest.mark.parametrize(
    ("prediction", "says"),
    [
        ([[1.0], [1.0, 2.0]], "of series shop-1 has 2 elements, its target 1"),
        ([[1.0], []], "of series shop-1 is empty: a series has at least one element"),
        ([[1.0], None], "of series shop-1 is null"),
    ],
)
def test_faults_name_the_series_in_arrow(prediction, says):
    for ids in (pa.array(["x", "shop-1"]), pa.array(["x", "shop-1"]).dictionary_encode()):
        made = pa.table({"id": ids, "prediction": prediction, "target": [[1.0], [1.0]]})
        with pytest.raises(InvalidError) as error:
            read(write(made))
        (fault,) = error.value.errors
        assert (fault.pointer, fault.detail) == ("/prediction/1", says)

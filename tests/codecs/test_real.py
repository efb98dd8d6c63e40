"""Real forecasts, and awkward series beside them."""

import forecasts
import orjson
import pyarrow as pa
from streams import answers, read, write

from loss_scoring.core import ScoreOptions
from loss_scoring.service.codecs import json


def test_both_formats_give_the_same_bits():
    body = forecasts.REQUEST.read_bytes()
    table = pa.Table.from_pylist(orjson.loads(body)["series"])
    options = ScoreOptions(gradients=True, missing="skip")
    from_arrow, text_of_arrow = answers(read(write(table), options))
    from_json, text_of_json = answers(json.decode(memoryview(body), max_elements=1 << 20))
    assert text_of_arrow == text_of_json
    assert len(from_arrow) == len(table)
    for name in ("mae", "mape", "smape"):
        for column in (name, f"{name}_gradient"):
            values, expected = (t.column(column).combine_chunks() for t in (from_arrow, from_json))
            if column != name:
                values, expected = values.flatten(), expected.flatten()
            assert (
                values.to_numpy(zero_copy_only=False).tobytes()
                == expected.to_numpy(zero_copy_only=False).tobytes()
            )


def test_batches_do_not_change_the_bits():
    table = forecasts.various()
    options = ScoreOptions(gradients=True, missing="skip")
    whole, _ = answers(read(write(table), options))
    cut = write(table.to_batches(max_chunksize=97), compression="zstd")
    parts, _ = answers(read(cut, options))
    assert whole.equals(parts)
    assert len(whole) == len(table)

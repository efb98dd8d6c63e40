"""The real forecasts beside the repository, where they are."""

from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from streams import answers, read, write

from core import ScoreOptions
from service.codecs import json

FILES = Path(__file__).resolve().parents[2].parent / "shared" / "data"
BODY, FORECASTS = FILES / "series_small.json", FILES / "forecasts_nested.arrow"


@pytest.mark.skipif(not BODY.exists(), reason="no shared files")
def test_both_formats_give_the_same_bits():
    body = BODY.read_bytes()
    table = pa.Table.from_pylist(orjson.loads(body)["series"])
    options = ScoreOptions(gradients=True, missing="skip")
    from_arrow, text_of_arrow = answers(read(write(table), options))
    from_json, text_of_json = answers(json.decode(memoryview(body), max_elements=1 << 20))
    assert text_of_arrow == text_of_json
    assert len(from_arrow) == 47
    for name in ("mae", "mape", "smape"):
        for column in (name, f"{name}_gradient"):
            one, other = (t.column(column).combine_chunks() for t in (from_arrow, from_json))
            if column != name:
                one, other = one.flatten(), other.flatten()
            assert (
                one.to_numpy(zero_copy_only=False).tobytes()
                == other.to_numpy(zero_copy_only=False).tobytes()
            )


@pytest.mark.skipif(not FORECASTS.exists(), reason="no shared files")
def test_batches_do_not_change_the_bits():
    table = pa.ipc.open_file(FORECASTS).read_all()
    options = ScoreOptions(gradients=True, missing="skip")
    whole, _ = answers(read(write(table), options))
    cut = write(table.to_batches(max_chunksize=97), compression="zstd")
    parts, _ = answers(read(cut, options))
    assert whole.equals(parts)
    assert len(whole) == 2886

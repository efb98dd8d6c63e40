"""The client against the real service, on real forecasts."""

import asyncio
import os
import ssl
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pandas as pd
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LOSS_SCORING, serving
from forecasts import LONG
from instance import free_port
from reference import score_series

from loss_scoring.core.table import score_table
from lossclient import (
    AsyncClient,
    BadRequest,
    Client,
    InvalidInput,
    InvalidValues,
    LeftOutWarning,
    TooLarge,
    TransportError,
    Unauthorized,
)
from lossclient.wire import MEDIA_TYPE

LOSSES = ("mae", "mape", "smape")
KEYS = ["unique_id", "cutoff"]


@pytest.fixture(scope="module")
def forecasts():
    return pd.read_parquet(LONG)


@pytest.fixture(scope="module")
def models(forecasts):
    return [name for name in forecasts if name not in (*KEYS, "ds", "y")]


@pytest.fixture(scope="module")
def wanted(forecasts, models):
    """Every series of every model, one after the other, in plain numpy."""
    rows = []
    for key, part in forecasts.groupby(KEYS, sort=False):
        y = part.sort_values("ds")["y"].to_numpy()
        for model in models:
            p = part.sort_values("ds")[model].to_numpy()
            scored = {loss: score_series(p, y, loss, missing="skip") for loss in LOSSES}
            rows.append((*key, model, len(y), scored))
    return rows


def check(frame, wanted, *, gradients):
    table = pa.table(frame)
    losses = {loss: table[loss].to_numpy() for loss in LOSSES}
    assert table["unique_id"].to_pylist() == [row[0] for row in wanted]
    assert table["model"].to_pylist() == [row[2] for row in wanted]
    assert table["length"].to_pylist() == [row[3] for row in wanted]
    for loss in LOSSES:
        values = [row[4][loss][0] for row in wanted]
        np.testing.assert_allclose(losses[loss], values, rtol=1e-12)
        if loss != "mae":
            assert table[f"{loss}_masked"].to_pylist() == [row[4][loss][1] for row in wanted]
        if gradients:
            found = table[f"{loss}_gradient"].combine_chunks()
            bits = np.concatenate([row[4][loss][2] for row in wanted])
            assert found.flatten().to_numpy().tobytes() == bits.tobytes()


@pytest.mark.parametrize("read", [pd.read_parquet, pl.read_parquet, pq.read_table])
def test_a_frame_is_scored_as_numpy_does(url, read, models, wanted):
    df = read(LONG)
    with Client(url) as client:
        frame = client.score(df, models, missing="skip", gradients=True)
    assert type(frame) is type(df)
    check(frame, wanted, gradients=True)
    cutoffs = frame["cutoff"]
    assert (cutoffs.type if isinstance(frame, pa.Table) else cutoffs.dtype) == (
        df["cutoff"].type if isinstance(frame, pa.Table) else df["cutoff"].dtype
    )


def test_rows_of_any_order_in_requests_of_any_size(url, forecasts, wanted):
    shuffled = forecasts.sample(frac=1, random_state=3).astype({"unique_id": "category"})
    with Client(url, request_bytes=40_000, concurrency=3, compression="zstd") as client:
        frame = client.score(shuffled.set_index("unique_id"), missing="skip", gradients=True)
        again = client.score_series([[1.0]], [[3.0]])
    place = {(row[0], row[1], row[2]): i for i, row in enumerate(wanted)}
    keys = zip(frame["unique_id"], frame["cutoff"], frame["model"], strict=True)
    order = np.argsort([place[key] for key in keys])
    frame = frame.iloc[order].reset_index(drop=True)
    for loss in LOSSES:
        frame[f"{loss}_gradient"] = pd.Series(list(frame[f"{loss}_gradient"]))
    check(frame, wanted, gradients=True)
    assert again.losses["mae"].tolist() == [2]


def test_tasks_and_threads_give_the_same_bits(url, forecasts):
    async def main():
        async with AsyncClient(url, request_bytes=100_000) as client:
            return await asyncio.gather(
                client.score(forecasts, missing="skip", gradients=True),
                client.score(forecasts[:500], missing="skip"),
            )

    whole, part = asyncio.run(main())
    with Client(url) as client:
        assert_same(whole, client.score(forecasts, missing="skip", gradients=True))
        assert_same(part, client.score(forecasts[:500], missing="skip"))


def assert_same(found, wanted):
    assert pa.table(found).equals(pa.table(wanted))


def test_the_command_line_says_the_same(url, models, tmp_path):
    out = tmp_path / "scores.parquet"
    subprocess.run(
        [LOSS_SCORING, "score", LONG, "--missing", "skip", "-o", out],
        check=True,
        capture_output=True,
    )
    with Client(url) as client:
        frame = client.score(pq.read_table(LONG), models, missing="skip")
    assert pq.read_table(out).cast(frame.schema).equals(frame)


@pytest.mark.parametrize("read", [pd.read_parquet, pl.read_parquet, pq.read_table])
@pytest.mark.parametrize("by", ["horizon", ["cutoff", "horizon"], "model"])
def test_pooled_elements_are_scored_as_by_score_table(url, read, models, by):
    table = pq.read_table(LONG)
    want = score_table(table, by=by, predictions=models, missing="skip")
    df = read(LONG)
    with Client(url, request_bytes=40_000) as client:
        frame = client.score(df, models, missing="skip", by=by)
        with pytest.raises(InvalidInput, match="gradients are of series"):
            client.score(df, models, by=by, gradients=True)
    assert type(frame) is type(df)
    found = pa.table(frame).cast(want.schema)
    assert found.replace_schema_metadata(None).equals(want)


def test_a_missing_element_of_a_group_is_found_in_the_callers_frame(url, forecasts):
    shuffled = forecasts.dropna(subset=["y"]).sample(frac=1, random_state=6)
    row = len(shuffled) // 2
    shuffled.iloc[row, shuffled.columns.get_loc("Theta")] = None
    with Client(url) as client, pytest.raises(InvalidValues) as caught:
        client.score(shuffled, models=["Theta"], by="horizon")
    (fault,) = caught.value.errors
    assert fault.row == row
    assert fault.id.startswith("horizon=")


def test_warnings_point_to_the_callers_line(url):
    columns = {"unique_id": ["a"], "ds": [1], "y": [1.0], "A": [2.0], "horizon": [1], "0.1": [0.5]}
    words = (
        r"scored as models: A; left out: 'horizon' \(a forecast step\), '0\.1' \(a quantile\); "
        "name columns by models= or leave them out by exclude= to silence this"
    )

    async def main(**chosen):
        async with AsyncClient(url) as client:
            return await client.score(pd.DataFrame(columns), losses=["mae"], **chosen)

    with Client(url) as client:
        for make in (pd.DataFrame, pl.DataFrame, pa.table):
            with pytest.warns(LeftOutWarning, match=words) as caught:
                frame = client.score(make(columns), losses=["mae"])
            assert pa.table(frame)["model"].to_pylist() == ["A"]
            assert [warning.filename for warning in caught] == [__file__]
        with pytest.warns(LeftOutWarning, match=words) as caught:
            assert asyncio.run(main())["model"].tolist() == ["A"]
        assert [warning.filename for warning in caught] == [__file__]
        for chosen, models in (
            ({"exclude": ["horizon", "0.1"]}, ["A"]),
            ({"models": ["A", "0.1"]}, ["A", "0.1"]),
        ):
            frame = client.score(pd.DataFrame(columns), losses=["mae"], **chosen)
            assert frame["model"].tolist() == models
            assert asyncio.run(main(**chosen)).equals(frame)


def test_repeated_rows(url):
    frame = pl.DataFrame({"unique_id": ["a", "a"], "ds": [7, 7], "y": [1.0, 2.0], "A": [2.0, 5.0]})

    async def main(**options):
        async with AsyncClient(url) as client:
            return await client.score(frame, losses=["mae"], **options)

    with Client(url) as client:
        with pytest.raises(
            InvalidInput, match="series 'a' has ds 7 twice, in rows 0 and 1"
        ) as here:
            client.score(frame, losses=["mae"])
        with pytest.raises(InvalidInput) as there:
            asyncio.run(main())
        assert str(here.value) == str(there.value)
        allowed = client.score(frame, losses=["mae"], duplicates="allow")
        assert allowed["mae"].to_list() == [2]
        assert allowed.equals(asyncio.run(main(duplicates="allow")))


def test_ids_that_are_objects(url):
    ids = [uuid.UUID(int=1 + row // 3) for row in range(6)]
    columns = {"unique_id": ids, "ds": [0, 1, 2] * 2, "y": [10.0] * 6, "A": range(10, 16)}
    with Client(url) as client:
        for make in (pd.DataFrame, pl.DataFrame):
            frame = client.score(make(columns), losses=["mae"])
            assert list(frame["unique_id"]) == [ids[0], ids[3]]
            assert list(frame["mae"]) == [1, 4]


KINDS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint64(), pa.float16(),
         pa.float64(), pa.decimal128(9, 2), pa.decimal256(40, 2)]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numbers_of_any_type_are_computed_as_the_service_does(url, kind):
    """The client's answer is that of the service for the same columns in its long form."""
    rng = np.random.default_rng(7)
    numbers, other = (
        pa.array(rng.integers(1, 100, 60).astype(float).tolist()).cast(kind) for _ in range(2)
    )
    floats = pa.array(rng.normal(9, 3, size=60), pa.float32())
    for y, model in ((numbers, floats), (floats, numbers), (numbers, other)):
        table = pa.table({"unique_id": np.repeat(np.arange(6), 10), "y": y, "A": model})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        answer = httpx.post(
            f"{url}/score",
            params={"group_columns": "unique_id", "gradients": "true"},
            content=sink.getvalue().to_pybytes(),
            headers={"content-type": MEDIA_TYPE},
        )
        answer.raise_for_status()
        wanted = pa.ipc.open_stream(answer.content).read_all()
        with Client(url) as client:
            found = client.score(table, time_col=None, gradients=True)
        for name in found.column_names:
            assert found[name].equals(wanted[name].cast(found[name].type)), name


def test_undefined_losses_are_null_and_propagated_ones_are_not(url):
    df = pl.DataFrame(
        {"unique_id": ["a", "b"], "ds": [1, 1], "y": [1.0, None], "Naive": [3.0, 4.0]}
    )
    with Client(url) as client:
        assert client.score(df, missing="skip")["mae"].to_list() == [2, None]
        propagated = client.score(df, missing="propagate")["mae"]
    assert propagated.null_count() == 0
    assert propagated.is_nan().to_list() == [False, True]


@pytest.mark.parametrize("bad", [None, float("inf")])
def test_a_missing_element_is_found_in_the_callers_frame(url, forecasts, models, bad):
    valid = forecasts.dropna(subset=["y", "Theta"]).reset_index(drop=True)
    row = 17_000 if len(valid) > 17_000 else len(valid) // 2
    valid.loc[row, "Theta"] = bad
    shuffled = valid.sample(frac=1, random_state=5)
    with Client(url, request_bytes=100_000) as client, pytest.raises(InvalidValues) as caught:
        client.score(shuffled, models=["Theta"])
    (fault,) = caught.value.errors
    assert shuffled.index[fault.row] == row
    assert (fault.id, fault.cutoff) == tuple(valid.loc[row, KEYS])
    assert (fault.model, fault.side) == ("Theta", "prediction")
    series = valid[(valid[KEYS] == valid.loc[row, KEYS]).all(axis=1)].sort_values("ds")
    assert series.index[fault.position] == row
    assert caught.value.count == 1


def test_a_missing_element_of_a_nested_series_is_named_as_it_is_nested(url):
    target = np.arange(12.0).reshape(2, 3, 2)
    target[1, 2, 0] = np.nan
    with Client(url) as client, pytest.raises(InvalidValues) as caught:
        client.score_series(np.ones((2, 3, 2)), target, ids=["a", "b"])
    (fault,) = caught.value.errors
    assert (fault.id, fault.side, fault.position, fault.index) == ("b", "target", 4, (2, 0))
    assert str(fault).startswith("series 'b': target [2, 0] is missing")
    assert str(caught.value).startswith("422: series 'b': target [2, 0] is missing")
    assert "series=" not in f"{caught.value!r} {caught.value}"


def test_options_are_refused_by_the_service_in_its_own_words(url):
    with Client(url) as client:
        with pytest.raises(InvalidValues, match="unknown loss 'mad'"):
            client.score_series([[1.0]], [[1.0]], losses=["mad"])
        with pytest.raises(InvalidValues, match="must be 'error', 'skip' or 'propagate'"):
            client.score_series([[1.0]], [[1.0]], missing="drop")


def test_models_of_different_types_are_scored_each_in_its_own(url):
    rng = np.random.default_rng(4)
    columns = {"unique_id": np.repeat(np.arange(40), 7), "y": rng.normal(size=280)}
    types = {"A": "f4", "B": "f8", "C": "f4", "D": "i4", "E": "f8"}
    columns |= {name: (9 * rng.normal(size=280)).astype(type_) for name, type_ in types.items()}
    for target in ("f4", "f8"):
        columns["y"] = columns["y"].astype(target)
        df = pl.DataFrame(columns)
        with Client(url, request_bytes=3000) as client:
            frame = client.score(df, time_col=None, gradients=True)
            assert frame["model"].to_list() == list(types) * 40
            for i, name in enumerate(types):
                alone = client.score(df, [name], time_col=None, gradients=True)
                found = frame.gather_every(len(types), i)
                assert found.drop(cs.list()).equals(alone.drop(cs.list()))
                for loss in LOSSES:
                    exact = alone[f"{loss}_gradient"].cast(pl.List(pl.Float64))
                    assert found[f"{loss}_gradient"].equals(exact)
                wanted = pl.Float32 if types[name] == "f4" else pl.Float64
                assert alone["mae_gradient"].dtype == pl.List(wanted)


def test_no_rows_have_the_columns_of_an_answer(url, forecasts):
    with Client(url) as client:
        filled, empty = (client.score(forecasts[:n], missing="skip") for n in (9, 0))
        series = client.score_series([], [], gradients=True)
    assert empty.columns.tolist() == filled.columns.tolist()
    assert (len(empty), len(series.ids), len(series.gradients["mae"])) == (0, 0, 0)


def test_one_series_that_is_too_large_with_all_models(small):
    rng = np.random.default_rng(6)
    y, *models = rng.normal(size=(13, 900))
    df = pd.DataFrame({"unique_id": "a", "y": y} | {f"m{i}": p for i, p in enumerate(models)})
    for request_bytes in (8 << 20, 20_000):
        with Client(small, api_key=KEY, request_bytes=request_bytes) as client:
            frame = client.score(df, time_col=None)
        assert frame["model"].tolist() == [f"m{i}" for i in range(12)]
        wanted = [np.abs(p - y).mean() for p in models]
        np.testing.assert_allclose(frame["mae"], wanted, rtol=1e-12)


FORKS = """
import os, sys
import numpy as np
from lossclient import Client

def ask(value):
    scores = client.score_series(np.full((40, 9), value), np.zeros((40, 9)), losses=["mae"])
    assert scores.losses["mae"].tolist() == [value] * 40

client = Client(sys.argv[1], request_bytes=400, concurrency=4)
ask(1.0)
child = os.fork()
for _ in range(30):
    ask(1.0 if child else 2.0)
if not child:
    client.close()  # its own, not the parent's
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
ask(1.0)
client.close()
"""


def test_a_child_that_was_forked_does_not_read_its_parents_answers(url):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0


def test_connections_make_no_tls_context(url, monkeypatch):
    """OpenSSL has a lock for that, and a child may be forked meanwhile by another thread."""
    with Client(url) as client:
        monkeypatch.setattr(ssl, "SSLContext", None)
        assert client.score_series([[1.0]], [[3.0]], losses=["mae"]).losses["mae"].tolist() == [2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays(url, dtype):
    rng = np.random.default_rng(1)
    p, y = rng.normal(size=(2, 50, 3, 8)).astype(dtype)
    with Client(url, request_bytes=2000) as client:
        scores = client.score_series(p, y, gradients=True, block_denom_grad=False)
    assert scores.lengths.tolist() == [24] * 50
    for loss in LOSSES:
        assert scores.gradients[loss].dtype == dtype
        for i, gradient in enumerate(scores.split(loss)):
            value, _, slope = score_series(p[i].ravel(), y[i].ravel(), loss, block=False)
            assert scores.losses[loss][i] == pytest.approx(value, rel=1e-12)
            assert gradient.tobytes() == slope.tobytes()


KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def small():
    limits = {"LOSS_SCORING_MAX_BODY_BYTES": "20000", "LOSS_SCORING_API_KEYS": KEY}
    with serving(LOSS_SCORING, "serve", **limits) as base:
        yield base


def test_a_service_with_small_limits_gets_small_requests(small, forecasts, wanted):
    short = forecasts[forecasts.groupby(KEYS)["y"].transform("size") <= 1000]
    short_rows = [row for row in wanted if row[3] <= 1000]
    with Client(small, api_key=KEY) as client:
        check(client.score(short, missing="skip"), short_rows, gradients=False)
        with pytest.raises(TooLarge) as caught:
            client.score_series([np.ones(10), np.ones(5000)], [np.ones(10), np.ones(5000)])
    assert "1" in caught.value.__notes__[0]


def test_keys(small):
    for options in ({}, {"api_key": "another-key-of-some-length"}):
        with Client(small, **options) as client, pytest.raises(Unauthorized) as caught:
            client.score_series([[1.0]], [[1.0]])
        assert caught.value.status == 401
        assert caught.value.request_id.startswith("lossclient-")
    with Client(small, api_key=KEY) as client:
        assert client.score_series([[1.0]], [[2.0]]).losses["mae"].tolist() == [1]


def test_no_service_at_the_url():
    with (
        Client(f"http://127.0.0.1:{free_port()}", retries=1) as client,
        pytest.raises(TransportError, match="ConnectError"),
    ):
        client.score_series([[1.0]], [[1.0]])


class Busy(BaseHTTPRequestHandler):
    """Is overloaded twice, and then cannot read the request."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(self.headers["x-request-id"])
        self.send_response(503 if len(self.server.seen) < 3 else 400)
        self.send_header("content-length", "0")
        self.send_header("retry-after", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_refusals_are_retried_over_a_socket():
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        server.seen = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(BadRequest):
            client.score_series([[1.0]], [[1.0]])
        server.shutdown()
    assert len(server.seen) == 3
    assert [name.rpartition("-")[2] for name in server.seen] == ["1", "2", "3"]


def test_a_call_imports_nothing(url):
    """Each import holds a lock, and a child may be forked meanwhile by another thread."""
    code = (
        "import sys; from lossclient import Client; client = Client(sys.argv[1]); "
        "before = set(sys.modules); client.score_series([[1.0]], [[0.0]], progress=False); "
        "client.close(); assert not set(sys.modules) - before, set(sys.modules) - before"
    )
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, url]
    assert subprocess.run(command, env=environment, timeout=200, check=False).returncode == 0

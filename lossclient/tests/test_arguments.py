"""Arguments that make no sense are `InvalidInput`, which names them; nothing is sent."""

import asyncio
import math
from types import MappingProxyType

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from fake_service import answer

from lossclient import AsyncClient, Client, InvalidInput, Retries

URL = "http://service.test"
FRAME = pa.table({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "A": [1.0, 2.0]})
NOT_SECONDS = (0, -1.0, math.inf, math.nan, 1e10, 10**400, "5", [5], True, 1j)
NOT_COUNTS = (0, -1, 2.5, math.inf, "4", None, True, np.float64(4))
OF_A_CLIENT = {
    "base_url": (
        "service:8000", "ftp://service", "http://", None, 5, b"http://a", "http://a:99999",
        "http://a\n", "http://a..b",
    ),
    "api_key": ("ключ", "key\n", "a key", " key", "", b"key", 5),
    "timeout": (*NOT_SECONDS, None, httpx.Timeout(math.inf), httpx.Timeout(5, read=-1)),
    "deadline_s": NOT_SECONDS,
    "retries": (-1, 1.5, "5", None, True),
    "concurrency": NOT_COUNTS,
    "request_bytes": NOT_COUNTS,
    "compression": ("br", "", True, ["gzip"], np.array(["gzip", "zstd"])),
    "headers": (
        "a: b", [("a", "b")], {"a": "b\n"}, {"a": "é"}, {"a": 1}, {"a": None}, {"a b": "c"},
        {"": "c"}, {1: "c"}, {"a\n": "c"},
    ),
}  # fmt: skip
OF_ANY_CALL = {
    "losses": (
        "mae", "mae,mape", ["mae,mape"], [], (), [""], [1], [None], [["mae"]], 5, b"mae",
        {"name": "mae"}, [{}], [{"name": "a,b"}], [{"name": "huber", "delta": "1"}], [{"name": 1}],
        {"mae"}, np.array(["mae", "mape"]), iter(["mae"]),
    ),
    "gradients": ("false", 1, None, np.array([True, False])),
    "block_denom_grad": ("false", 0, None),
    "missing": (None, True, ["skip"]),
    "zero_division": (None, 0, ["skip"]),
}  # fmt: skip
OF_A_FRAME = {
    "id_col": (None, 5, ["unique_id"], ("unique_id", "cutoff")),
    "time_col": (5, ["ds"]),
    "target_col": (None, 5, ["y"]),
    "cutoff_col": (5, ["cutoff"]),
    "models": ("A", 5, [5], [None], [["A"]], [("A", "B")], iter(["A"]), np.array([["A"]])),
    "exclude": (None, "A", 5, [5], iter(["A"])),
    "duplicates": (None, "drop", True, ["error"]),
}


def cases(table):
    return [(name, value) for name, values in table.items() for value in values]


def of(name):
    return f"^{name} must be "


@pytest.mark.parametrize(("name", "value"), cases(OF_A_CLIENT))
def test_of_a_client(name, value):
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInput, match=of(name)):
            kind(**{"base_url": URL, name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "https://service.test:443/api/", "api_key": "a.b-c_d~e+f/g=="},
        {"base_url": httpx.URL("http://[::1]:8000"), "timeout": np.float32(5), "deadline_s": 1},
        {"base_url": "http://é.test", "timeout": httpx.Timeout(None), "retries": 0},
        {"base_url": URL, "concurrency": np.int64(2), "request_bytes": 1},
        {"base_url": URL, "headers": MappingProxyType({"x-a": "b c", "x-d": ""})},
    ],
)
def test_arguments_that_make_sense(options):
    with Client(transport=httpx.MockTransport(answer), **options) as client:
        assert client.score_series([[1.0]], [[3.0]]).losses["mae"].tolist() == [2]


IN_URL = {"base_url": "http://me:secret@service.test"}
KEY = {"api_key": "secret"}
HEADER = {"headers": {"authorization": "Bearer secret"}}


@pytest.mark.parametrize("options", [IN_URL | KEY, IN_URL | HEADER, KEY | HEADER])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_two_credentials_are_refused(kind, options):
    with pytest.raises(InvalidInput, match="are different credentials; give one") as caught:
        kind(**{"base_url": URL, **options})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sent"),
    [(IN_URL, "Basic bWU6c2VjcmV0"), (KEY, "Bearer secret"), (HEADER, "Bearer secret")],
)
def test_one_credential_is_sent(options, sent):
    def respond(request):
        assert request.headers.get_list("authorization") == [sent]
        return answer(request)

    transport = httpx.MockTransport(respond)
    with Client(**{"base_url": URL, "transport": transport, **options}) as client:
        assert client.score_series([[1.0]], [[3.0]]).losses["mae"].tolist() == [2]


def test_a_secret_is_not_shown():
    for options in (
        {"api_key": "secret\n"},
        {"headers": {"authorization": "secret\n"}},
        {"base_url": "http://u:secret@h:0"},
    ):
        with pytest.raises(InvalidInput) as caught:
            Client(**{"base_url": URL, **options})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["attempts", "first_s", "most_s", "patience_s"])
@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "5", None])
def test_of_retries(name, value):
    with pytest.raises(InvalidInput, match=of(name)):
        Retries(**{name: value})


def refuse(request):
    raise AssertionError("it was sent")


def call(method, *arguments, **options):
    """Call both clients; each must refuse in the same words."""

    async def main():
        async with AsyncClient(URL, transport=httpx.MockTransport(refuse)) as client:
            await getattr(client, method)(*arguments, **options)

    with pytest.raises(InvalidInput) as of_tasks:
        asyncio.run(main())
    with (
        Client(URL, transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(InvalidInput) as of_threads,
    ):
        getattr(client, method)(*arguments, **options)
    assert str(of_tasks.value) == str(of_threads.value)
    raise of_threads.value


@pytest.mark.parametrize(("name", "value"), cases(OF_ANY_CALL))
def test_of_any_call(name, value):
    with pytest.raises(InvalidInput, match=of(name)):
        call("score_series", [[1.0]], [[2.0]], **{name: value})
    with pytest.raises(InvalidInput, match=of(name)):
        call("score", FRAME, **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(OF_A_FRAME))
def test_of_a_frame(name, value):
    with pytest.raises(InvalidInput, match=of(name)):
        call("score", FRAME, **{name: value})


@pytest.mark.parametrize(
    "columns",
    [
        {"id_col": "y"},
        {"id_col": "ds"},
        {"time_col": "unique_id"},
        {"time_col": "y"},
        {"cutoff_col": "unique_id"},
        {"cutoff_col": "ds"},
        {"cutoff_col": "y", "time_col": None},
    ],
)
@pytest.mark.parametrize("kind", [pa.table, pl.from_arrow, pa.Table.to_pandas])
def test_no_column_is_two_things(kind, columns):
    with pytest.raises(InvalidInput, match="each must be a column of its own"):
        call("score", kind(FRAME), **columns)


def test_the_default_for_cutoffs_counts_where_it_is_there():
    frame = FRAME.rename_columns(["cutoff", "ds", "y", "A"])
    with pytest.raises(InvalidInput, match="are 'cutoff'"):
        call("score", frame, id_col="cutoff")


@pytest.mark.parametrize("models", [["A"], ("A",), np.array(["A"]), pd.Index(["A"]), {"A": 1}])
def test_models_may_be_any_names_that_stay(models):
    with Client(URL, transport=httpx.MockTransport(answer)) as client:
        assert client.score(FRAME, models)["model"].to_pylist() == ["A"]


@pytest.mark.parametrize(
    "df", [pd.Series([1.0], name="y"), pl.Series([1.0]), pa.array([1.0]), pa.chunked_array([[1.0]])]
)
def test_a_column_is_no_frame(df):
    with pytest.raises(InvalidInput, match="a frame is wanted"):
        call("score", df)


@pytest.mark.parametrize("ids", [[[1], [2, 3]], iter("ab"), "ab", 5])
def test_ids_that_are_no_list_of_them(ids):
    with pytest.raises(InvalidInput, match=of("ids")):
        call("score_series", [[1.0], [2.0]], [[1.0], [2.0]], ids)

"""Content-Encoding of requests, over real sockets."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from test_errors import GOOD, JSON, narrow, problem  # noqa: F401 - narrow is a fixture
from wire import ARROW, post_arrow, stream

MEBI = 1 << 20


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd, "ZSTD": zstd}


@pytest.mark.parametrize("coding", COMPRESS)
def test_json(client, coding):
    body = COMPRESS[coding](json.dumps(GOOD).encode())
    answer = client.post("/score", content=body, headers={**JSON, "Content-Encoding": coding})
    assert answer.status_code == 200, answer.text
    assert answer.json()["losses"]["mae"] == [1.0]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_arrow_large_and_small(client, coding):
    for length in (10, 200_000):
        values = np.random.default_rng(0).normal(size=(2, length)).round(2)
        table = pa.table({"prediction": [values[0]], "target": [values[1]]})
        body = COMPRESS[coding](stream(table))
        headers = {"Content-Type": ARROW, "Content-Encoding": coding}
        answer = client.post("/score", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert pa.ipc.open_stream(answer.content).read_all() == post_arrow(client, table)


def test_identity_is_no_coding(client):
    headers = {"Content-Encoding": "identity"}
    assert client.post("/score", json=GOOD, headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "gzip, gzip", "identity, gzip", "deflate"])
def test_415_names_the_supported_codings(client, coding):
    answer = client.post("/score", json=GOOD, headers={"Content-Encoding": coding})
    assert coding in problem(answer, 415)["detail"]
    assert answer.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_400_of_a_body_that_is_not_whole(client, coding):
    whole = COMPRESS[coding](json.dumps(GOOD).encode())
    for body in (whole[:-1], whole + b"tail", b"", json.dumps(GOOD).encode()):
        answer = client.post("/score", content=body, headers={**JSON, "Content-Encoding": coding})
        problem(answer, 400)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("kind", [JSON["Content-Type"], ARROW])
def test_413_of_a_bomb_by_the_limit_of_its_format(client, coding, kind):
    bomb = COMPRESS[coding](bytes(16 * MEBI)) * 64
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    document = problem(client.post("/score", content=bomb, headers=headers), 413)
    assert str((32 if kind == JSON["Content-Type"] else 128) * MEBI) in document["detail"]


def test_413_of_a_small_body_that_is_decompressed_on_the_event_loop(narrow):  # noqa: F811
    for size in (1900, 2001, 70_000):
        body = zstd(json.dumps(GOOD).encode().ljust(size))
        answer = narrow.post("/score", content=body, headers={**JSON, "Content-Encoding": "zstd"})
        if size > 2000:
            assert "decompressed" in problem(answer, 413)["detail"]
        else:
            assert answer.status_code == 200

"""Content-Encoding of requests and of long answers, over real sockets."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from test_errors import GOOD, JSON, narrow, problem  # noqa: F401 - narrow is a fixture
from wire import ARROW, post_arrow, stream

from loss_scoring.service.codecs.compression import compress
from loss_scoring.service.errors import DeadlineError, OverloadedError

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


LONG = {
    "gradients": True,
    "series": [{"prediction": [n + 0.25, 1.0 / (n + 1)], "target": [1.0, n]} for n in range(3000)],
}


def asked(client, accept_encoding, accept="application/json", **options):
    headers = {"Accept-Encoding": accept_encoding, "Accept": accept}
    with client.stream("POST", "/score", json=LONG | options, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize(
    ("named", "coded"),
    [
        ("zstd", True),
        ("gzip, deflate, br, ZSTD", True),
        ("identity;q=0.5, zstd;q=0.8", True),
        ("identity", False),
        ("gzip, deflate", False),
        ("zstd;q=0, gzip", False),
        ("zstd;q=0.5, identity", False),
        ("zstd;q=x", False),
        ("*", False),
        ("zstd," + "x" * 2000, False),
    ],
)
def test_a_long_answer_is_in_zstd_where_that_is_named(client, named, coded):
    _, plain = asked(client, "identity")
    assert len(plain) > 1 << 16
    answer, body = asked(client, named)
    assert answer.status_code == 200
    assert answer.headers.get("content-encoding") == ("zstd" if coded else None)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(body)
    if coded:
        assert len(body) < len(plain) / 2
        body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
    assert body == plain


def test_a_long_answer_in_arrow_has_many_parts_in_one_frame(client):
    rng = np.random.default_rng(5)
    prediction, target = rng.integers(1, 9, (2, 40_000, 10)).astype(float).tolist()
    table = pa.table({"prediction": prediction, "target": target})
    sent = {"content": stream(table), "params": {"gradients": "true"}}
    bodies = []
    for coding in ("identity", "zstd"):
        headers = {"Content-Type": ARROW, "Accept-Encoding": coding}
        with client.stream("POST", "/score", **sent, headers=headers) as answer:
            bodies.append(b"".join(answer.iter_raw()))
            assert answer.headers.get("content-encoding") == (coding if coding == "zstd" else None)
    assert len(bodies[0]) > 1 << 21
    frame = pa.CompressedInputStream(pa.BufferReader(bodies[1]), "zstd")
    assert (
        pa.ipc.open_stream(frame.read()).read_all().equals(pa.ipc.open_stream(bodies[0]).read_all())
    )


def test_short_answers_and_refusals_are_plain(client):
    headers = {"Accept-Encoding": "zstd"}
    for body in (GOOD, {"series": [{"prediction": [], "target": []}] * 9000}):
        assert "content-encoding" not in client.post("/score", json=body, headers=headers).headers


def test_an_answer_is_plain_where_there_is_no_memory_to_compress_it():
    class Full:
        def reserve(self, added):
            raise OverloadedError(f"no {added} bytes", 1, reason="memory-full")

    class Ended:
        def reserve(self, added): ...

        def check(self):
            raise DeadlineError("ended")

    parts = [memoryview(b"x" * 100_000)]
    assert compress(parts, Full(), 0) is None
    with pytest.raises(DeadlineError):
        compress(parts, Ended(), 0)

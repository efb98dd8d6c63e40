"""Every way to be refused, and that the answer says what to mend."""

import json
import socket
import sys
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from conftest import LOSS_SCORING, serving
from wire import ARROW, stream, table_of

GOOD = {"series": [{"prediction": [1.0], "target": [2.0]}]}
JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "errors", "retryable"} <= set(document)
    assert "Traceback" not in answer.text
    return document


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b'{"series": [', "line 1 column 13"),
        (b'{"series": [{"prediction": [NaN], "target": [1]}]}', "send a missing value as null"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'\xef\xbb\xbf{"series": []}', "not JSON; save it without a byte order mark"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"series": ' + b"9" * 5000 + b"}", "cannot be read"),
    ],
)
def test_400_unreadable_json(client, body, says):
    answer = client.post("/score", content=body, headers=JSON)
    assert says in problem(answer, 400)["detail"]


@pytest.mark.parametrize("cut", [0, 7, 100, -9])
def test_400_unreadable_arrow(client, cut):
    body = stream(table_of(GOOD["series"]))[:cut]
    answer = client.post("/score", content=body, headers={"Content-Type": ARROW})
    problem(answer, 400)


def test_404_and_405(client):
    assert "/nowhere" in problem(client.get("/nowhere"), 404)["detail"]
    refused = client.get("/score")
    problem(refused, 405)
    assert refused.headers["allow"] == "POST"


def test_406(client):
    document = problem(client.post("/score", json=GOOD, headers={"Accept": "text/csv"}), 406)
    assert "application/json" in document["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {**JSON, "Content-Encoding": "br"},
    ],
)
def test_415(client, headers):
    problem(client.post("/score", content=json.dumps(GOOD), headers=headers), 415)


@pytest.mark.parametrize("size", [256, 257, 30_000])
def test_415_of_a_long_content_type_without_reading_it(client, size):
    """Python's parser of it takes seconds for the longest; one of 256 bytes costs nothing."""
    given = f'{JSON["Content-Type"]}; a="'.ljust(size - 1, "x") + '"'
    answer = client.post("/score", json=GOOD, headers={"Content-Type": given})
    if size > 256:
        assert "256 bytes" in problem(answer, 415)["detail"]
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], []),
        ({"series": GOOD["series"], "loss": "mae"}, ["/loss"]),
        ({"series": GOOD["series"], "losses": ["mad"]}, ["/losses/0"]),
        ({"series": GOOD["series"], "losses": ["mae", "mae"]}, ["/losses"]),
        ({"series": [{"prediction": [1], "target": [1, 2]}]}, ["/series/0"]),
        ({"series": [{"prediction": [1], "target": [None]}]}, ["/series/0/target/0"]),
        ({"series": [{"prediction": ["1"], "target": [1]}]}, ["/series/0/prediction/0"]),
        ({"series": [{"prediction": [True], "target": [1]}]}, ["/series/0/prediction/0"]),
        (
            {"series": [{"prediction": [], "target": []}, {"prediction": None, "target": [1]}]},
            ["/series/0/prediction", "/series/0/target", "/series/1/prediction"],
        ),
    ],
)
def test_422_points_at_every_fault(client, body, pointers):
    document = problem(client.post("/score", json=body), 422)
    assert [error["pointer"] for error in document["errors"]] == pointers
    assert not document["retryable"]
    if len(pointers) == 1:
        assert document["detail"] == "{pointer}: {detail}".format(**document["errors"][0])


def test_422_lists_twenty_and_counts_the_rest(client):
    series = [{"prediction": [1, 2], "target": [1]} for _ in range(57)]
    document = problem(client.post("/score", json={"series": series}), 422)
    assert (len(document["errors"]), document["error_count"]) == (20, 57)
    assert "57 faults" in document["detail"]


def test_a_long_name_is_not_echoed_at_length(client):
    answer = client.post("/score", json={"series": [], "x" * 10**6: 1, "losses": ["y" * 10**6]})
    document = problem(answer, 422)
    assert [error["pointer"][:3] for error in document["errors"]] == ["/xx", "/lo"]
    assert len(answer.content) < 10_000


def test_422_of_a_query(client):
    body = stream(table_of(GOOD["series"]))
    answer = client.post(
        "/score",
        params={"losses": "mae", "block_denom_grad": "false", "gradient": "true", "missing": "no"},
        content=body,
        headers={"Content-Type": ARROW},
    )
    pointers = {error["pointer"] for error in problem(answer, 422)["errors"]}
    assert pointers == {"?block_denom_grad", "?gradient", "?missing"}
    in_json = client.post("/score", params={"gradients": "true"}, json=GOOD)
    assert problem(in_json, 422)["errors"][0]["pointer"] == "?gradients"


def test_422_of_arrow_columns(client):
    table = pa.table({"prediction": [[1.0]], "y": [[1.0]]})
    answer = client.post("/score", content=stream(table), headers={"Content-Type": ARROW})
    errors = problem(answer, 422)["errors"]
    assert [error["pointer"] for error in errors] == ["/y", "/target"]


@pytest.fixture(scope="module")
def narrow():
    with (
        serving(
            LOSS_SCORING,
            "serve",
            "--max-body-bytes",
            "2000",
            LOSS_SCORING_MAX_ELEMENTS="10",
        ) as base,
        httpx.Client(base_url=base, timeout=60) as session,
    ):
        yield session


def test_413_by_announced_length_without_reading_the_body(narrow):
    host, port = narrow.base_url.host, narrow.base_url.port
    with socket.create_connection((host, port), timeout=60) as raw:
        raw.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999\r\n\r\n"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_413_by_received_length(narrow):
    answer = narrow.post("/score", content=iter([b" " * 1500] * 2), headers=JSON)
    assert "2000" in problem(answer, 413)["detail"]


def test_413_by_elements(narrow):
    series = [{"prediction": [1] * 11, "target": [1] * 11}]
    assert "11 elements" in problem(narrow.post("/score", json={"series": series}), 413)["detail"]


def test_413_of_a_compressed_bomb(narrow):
    table = pa.table({"prediction": [[0.0] * 10**6], "target": [[0.0] * 10**6]})
    body = stream(table, compression="zstd")
    assert len(body) < 2000
    answer = narrow.post("/score", content=body, headers={"Content-Type": ARROW})
    assert "decompressed" in problem(answer, 413)["detail"]


@pytest.fixture
def faulty(tmp_path):
    service = Path(__file__).with_name("faulty_service.py")
    gate, ledger = tmp_path / "gate", tmp_path / "ledger"
    gate.touch()
    with serving(sys.executable, service, gate, ledger) as base:
        yield base, gate, ledger
        gate.unlink(missing_ok=True)


def test_500_of_a_failing_device_shows_no_trace(faulty):
    base, *_ = faulty
    with httpx.Client(base_url=base, timeout=60) as session:
        poison = {"series": [{"prediction": [666.0], "target": [2.0]}]}
        assert problem(session.post("/score", json=poison), 500)["retryable"]
        assert session.post("/score", json=GOOD).json()["losses"]["mae"] == [1.0]

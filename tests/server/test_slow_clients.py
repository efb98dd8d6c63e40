"""Clients that send slowly, too much of the wrong thing, or do not read their answer."""

import contextlib
import json
import re
import socket
import time

import httpx
import numpy as np
import pytest
from conftest import LOSS_SCORING, serving
from test_errors import GOOD
from wire import ARROW, stream, table_of

POST = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = json.dumps(GOOD).encode()
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SOON = 60  # seconds; the deadlines below are all one or less


@pytest.fixture(scope="module")
def impatient():
    limits = {
        "HEADER_TIMEOUT_S": "0.8",
        "KEEP_ALIVE_S": "1",
        "BODY_TIMEOUT_S": "0.8",
        "MIN_BODY_BYTES_PER_S": "1000",
        "WRITE_TIMEOUT_S": "0.8",
        "MAX_HEADER_BYTES": "4096",
    }
    environment = {f"LOSS_SCORING_{name}": value for name, value in limits.items()}
    with serving(LOSS_SCORING, "serve", **environment) as base:
        yield base


@pytest.fixture
def raw(impatient):
    with connect(impatient) as connection:
        yield connection


def connect(base: str) -> socket.socket:
    url = httpx.URL(base)
    return socket.create_connection((url.host, url.port), timeout=SOON)


def read_all(raw: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    while chunk := raw.recv(1 << 16):
        data += chunk
    return data


def read_one(raw: socket.socket) -> bytes:
    """Read one answer, and let the connection stay open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += raw.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(body) < length:
        body += raw.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def trickle(raw: socket.socket, data: bytes) -> int:
    """Send a byte now and then until the server has something to say; return how many."""
    raw.settimeout(0.05)
    sent = 0
    while sent < len(data):
        with contextlib.suppress(TimeoutError):
            if raw.recv(1, socket.MSG_PEEK):
                break
        raw.sendall(data[sent : sent + 1])
        sent += 1
    raw.settimeout(SOON)
    return sent


def problem(answer: bytes, status: int) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    assert status_line.startswith(f"HTTP/1.1 {status} "), answer
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["content-length"] == str(len(body))
    document = json.loads(body)
    assert document["status"] == status
    assert document["request_id"] == headers["x-request-id"]
    return document


def test_a_connection_that_sends_nothing_is_closed(raw):
    assert read_all(raw) == b""


@pytest.mark.parametrize("start", [b"P", POST, b"\r\n", b"\r\n" + POST + b"X"])
def test_408_of_a_head_that_stalls(raw, start):
    raw.sendall(start)
    assert problem(read_all(raw), 408)["retryable"]


def test_408_of_a_head_that_trickles(raw):
    head = POST + b"X: " + b"x" * 1000
    assert trickle(raw, head) < len(head), "a byte does not restart the time limit"
    problem(read_all(raw), 408)


def test_408_of_a_second_head_on_a_connection(raw):
    raw.sendall(WHOLE + POST)
    first, _, rest = read_all(raw).partition(b"HTTP/1.1 408 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    problem(b"HTTP/1.1 408 " + rest, 408)


def test_408_of_a_body_that_stalls(raw):
    raw.sendall(WHOLE[:-1])
    document = problem(read_all(raw), 408)
    assert document["retryable"]
    assert f"{len(BODY) - 1} bytes" in document["detail"]


@pytest.mark.parametrize("chunked", [True, False])
def test_408_of_a_body_that_trickles(raw, chunked):
    raw.sendall(POST + (b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 99999"))
    raw.sendall(b"\r\n\r\n")
    trickle(raw, b"1\r\n \r\n" * 500 if chunked else b" " * 3000)
    problem(read_all(raw), 408)


@pytest.mark.parametrize("chunked", [True, False])
def test_the_answer_is_whole_though_more_of_the_body_comes_behind_it(raw, chunked):
    raw.sendall(POST + (b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 99999"))
    raw.sendall(b"\r\n\r\n" + (b"1\r\n \r\n" if chunked else b" "))
    assert raw.recv(1, socket.MSG_PEEK)
    for _ in range(3):
        raw.sendall(b"1\r\n \r\n" if chunked else b" ")
        time.sleep(0.05)
    problem(read_all(raw), 408)


def test_a_slow_body_above_the_least_pace_is_served(raw):
    body = BODY + b" " * 6000
    raw.sendall(POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
    for start in range(0, len(body), 300):  # 6000 a second, for longer than the timeout
        raw.sendall(body[start : start + 300])
        time.sleep(0.05)
    assert read_all(raw).startswith(b"HTTP/1.1 200 ")


def test_a_refused_body_that_goes_on_for_ever_is_cut_off(raw):
    raw.sendall(POST.replace(b"json", b"xml") + b"Content-Length: 99999\r\n\r\n")
    assert read_one(raw).startswith(b"HTTP/1.1 415 ")
    deadline = time.monotonic() + SOON
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline:
            raw.sendall(b" ")
            time.sleep(0.05)
    assert time.monotonic() < deadline


def test_an_idle_connection_whose_body_ended_after_the_answer_is_closed(raw):
    raw.sendall(POST.replace(b"json", b"xml") + b"Content-Length: 2\r\n\r\n")
    assert read_one(raw).startswith(b"HTTP/1.1 415 ")
    raw.sendall(b"{}")
    assert read_all(raw) == b""


def test_431_of_a_head_that_never_ends(raw):
    raw.sendall(POST + b"X-Long: ")
    for _ in range(10):
        raw.sendall(b"x" * 500)
        time.sleep(0.005)
    assert "4096" in problem(read_all(raw), 431)["detail"]


@pytest.mark.parametrize(
    "head",
    [
        POST + b"X-Long: " + b"x" * 4050 + b"\r\nContent-Length: 0\r\n\r\n",
        POST + b"X: y\r\n" * 700 + b"Content-Length: 0\r\n\r\n",
        b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_431_of_a_head_in_one_piece(raw, head):
    raw.sendall(head)
    problem(read_all(raw), 431)


def test_431_of_a_head_behind_a_whole_request_and_of_trailers(impatient):
    with connect(impatient) as raw:
        raw.sendall(WHOLE)
        assert read_one(raw).startswith(b"HTTP/1.1 200 ")
        raw.sendall(POST + b"X-Long: " + b"x" * 5000)
        problem(read_all(raw), 431)
    with connect(impatient) as raw:
        raw.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                raw.sendall(b"X-Trailer: " + b"x" * 1000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            problem(read_all(raw), 431)


def test_large_bodies_and_pipelined_requests_are_no_heads(raw):
    body = BODY + b" " * 100_000
    large = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = WHOLE.replace(b"Host", b"Connection: close\r\nHost")
    raw.sendall(large + WHOLE + large + WHOLE[:30])
    time.sleep(0.02)
    raw.sendall(WHOLE[30:] + last)
    assert read_all(raw).count(b"HTTP/1.1 200 ") == 5


def test_400_of_what_is_not_http(raw):
    raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert problem(read_all(raw), 400)["type"].endswith(":malformed")


def answer_of_megabytes() -> bytes:
    rows = [{"prediction": row, "target": row} for row in np.ones((500, 1000)).tolist()]
    body = stream(table_of(rows))
    return (
        b"POST /score?gradients=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (ARROW.encode(), len(body)) + body
    )


def test_a_client_that_does_not_read_is_cut_off_and_a_slow_one_is_not(impatient):
    request = answer_of_megabytes()
    with connect(impatient) as never, connect(impatient) as slow:
        for raw in (never, slow):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            raw.sendall(request)
        slowly = b""
        while chunk := slow.recv(1 << 17):
            slowly += chunk
            time.sleep(0.01)
        head, _, body = slowly.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert f"content-length: {len(body)}".encode() in head
        time.sleep(2)
        got = 0
        with contextlib.suppress(ConnectionError):
            while chunk := never.recv(1 << 20):
                got += len(chunk)
        assert got < len(slowly)


def test_the_service_is_well_after_all_that(impatient):
    assert httpx.post(f"{impatient}/score", json=GOOD, timeout=60).json()["losses"]["mae"] == [1.0]


def test_answers_come_before_the_refusal_of_what_follows_and_after_the_end_of_requests(impatient):
    expected = [b"200", b"200", b"400"]
    for last, statuses in (
        (b"no request\r\n\r\n", expected),
        (b"GET /livez\r\n\r\n", expected),
        (b"", expected[:2]),
    ):
        with connect(impatient) as raw:
            raw.sendall(WHOLE + WHOLE + last)
            raw.shutdown(socket.SHUT_WR)
            assert re.findall(rb"HTTP/1.1 (\d+) ", read_all(raw)) == statuses


def test_many_pipelined_requests_are_all_answered_in_order_though_the_client_has_ended(impatient):
    """More than the server holds: reading pauses, and goes on as they are answered."""
    ids = [b"%d" % n for n in range(3000)]
    with connect(impatient) as raw:
        raw.sendall(
            b"".join(
                b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: %b\r\n\r\n" % id_ for id_ in ids
            )
        )
        raw.shutdown(socket.SHUT_WR)
        assert re.findall(rb"x-request-id: (\d+)", read_all(raw)) == ids

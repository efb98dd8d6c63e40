"""A server that is full, late or broken: who is refused, with what, and what is never computed."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pyarrow as pa
import pytest
from conftest import LOSS_SCORING, serving
from scrape import scrape, total
from test_errors import GOOD, faulty, problem  # noqa: F401 - faulty is a fixture
from wire import ARROW, stream

from loss_scoring.service.api.start import Start
from loss_scoring.service.app import create_app
from loss_scoring.service.codecs.codec import Codec
from loss_scoring.service.limits.threads import Threads
from loss_scoring.service.settings import Settings

MEBI = 1 << 20
ZEROS, IDS = np.zeros(50_000), np.zeros(50_000, np.int8)
BLOCKING = {"series": [{"prediction": [777.0], "target": [1.0]}]}


@pytest.fixture(scope="module")
def small():
    limits = {"MAX_BODY_BYTES": MEBI, "MAX_JSON_BYTES": MEBI, "MAX_OPEN_BYTES": 4 * MEBI}
    with serving(
        LOSS_SCORING, "serve", **{f"LOSS_SCORING_{k}": str(v) for k, v in limits.items()}
    ) as url:
        yield url


@contextlib.contextmanager
def half_sent(url, source, size=MEBI, key="none"):
    """Announce a body, send its beginning and hold the connection open."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection(
        (host, int(port)), timeout=60, source_address=(source, 0)
    ) as connection:
        head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {key}\r\n"
        connection.sendall(f'{head}Content-Length: {size}\r\n\r\n{{"series":'.encode())
        yield connection


def refused(connection):
    """Return the status and the headers of the answer to a body that was not sent."""
    stream = connection.makefile("rb")
    head = b"".join(iter(stream.readline, b"\r\n")).decode().rstrip()
    status = int(head.split()[1])
    headers = httpx.Headers([line.split(": ", 1) for line in head.split("\r\n")[1:]])
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(stream.read(int(headers["content-length"])))["retryable"] is True
    return status, headers


def post_from(url, source):
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=60) as client:
        return client.post(f"{url}/score", json=GOOD)


def test_a_client_that_takes_most_of_the_memory_is_refused_and_others_are_not(small):
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(half_sent(small, "127.0.0.1"))
        status, headers = refused(stack.enter_context(half_sent(small, "127.0.0.1")))
        assert status == 429, "refused before its body was sent"
        assert 1 <= int(headers["retry-after"]) <= 30
        assert post_from(small, "127.0.0.2").status_code == 200
        status, headers = refused(stack.enter_context(half_sent(small, "127.0.0.2")))
        assert status == 503
        assert 1 <= int(headers["retry-after"]) <= 30
    assert wait_for_success(small).status_code == 200


def test_shares_are_of_keys_where_keys_are_needed():
    """Behind a proxy all requests come from one address."""
    first, second = "first-0123456789", "second-0123456789"
    limits = {"MAX_BODY_BYTES": MEBI, "MAX_JSON_BYTES": MEBI, "MAX_OPEN_BYTES": 4 * MEBI}
    given = {**limits, "API_KEYS": f"{first},{second}"}
    environment = {f"LOSS_SCORING_{k}": str(v) for k, v in given.items()}
    with serving(LOSS_SCORING, "serve", **environment) as url, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(half_sent(url, "127.0.0.1", key=first))
        assert refused(stack.enter_context(half_sent(url, "127.0.0.2", key=first)))[0] == 429
        headers = {"Authorization": f"Bearer {second}"}
        assert httpx.post(f"{url}/score", json=GOOD, headers=headers, timeout=60).status_code == 200


def is_answered(connection):
    connection.settimeout(0.01)
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        return False


def wait_for_success(url):
    """The memory of broken connections is released as soon as the server has noticed."""
    for _ in range(200):
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(half_sent(url, "127.0.0.1")) for _ in range(2)]
            answer = post_from(url, "127.0.0.1")
            if answer.status_code == 200 and not any(map(is_answered, connections)):
                return answer
        time.sleep(0.05)
    raise AssertionError(answer.text)


def test_a_chunked_body_counts_as_it_comes(small):
    def chunks():
        for _ in range(20):
            yield b" " * (MEBI // 16)

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(half_sent(small, "127.0.0.1"))
        with httpx.Client(timeout=60) as client:
            headers = {"Content-Type": "application/json"}
            answer = client.post(f"{small}/score", content=chunks(), headers=headers)
        assert problem(answer, 429)["retryable"]


@pytest.mark.parametrize(
    ("query", "columns", "held"),
    [
        ("losses=mae", {s: pa.array([ZEROS]) for s in ("prediction", "target")}, MEBI * 11 // 4),
        ("group_columns=id", {"id": IDS, "y": ZEROS, "model": ZEROS}, MEBI * 5 // 4),
    ],
)
def test_compressed_arrow_counts_as_what_it_unpacks_to(small, query, columns, held):
    table = pa.table(columns)
    body = stream(table, compression="zstd")
    assert len(body) < 10_000
    assert table.nbytes >= 800_000
    source = f"127.0.0.{20 + len(columns)}"
    transport = httpx.HTTPTransport(local_address=source)
    with (
        httpx.Client(base_url=small, transport=transport, timeout=60) as client,
        contextlib.ExitStack() as stack,
    ):
        send = {"content": body, "headers": {"Content-Type": ARROW}}
        assert client.post(f"/score?{query}", **send).status_code == 200
        for start in range(0, held, MEBI):
            stack.enter_context(half_sent(small, source, min(MEBI, held - start)))
        while total(scrape(small), "loss_scoring_open_bytes") < held:
            time.sleep(0.01)
        problem(client.post(f"/score?{query}", **send), 429)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "9" * 20])
def test_a_timeout_is_a_number_of_milliseconds(client, given):
    answer = client.post("/score", json=GOOD, headers={"X-Request-Timeout-Ms": given})
    assert problem(answer, 422)["errors"][0]["pointer"] == "X-Request-Timeout-Ms"


def test_a_long_timeout_is_cut_and_a_valid_one_is_used(client):
    for given in ("60000", "999999999", "0060000"):
        answer = client.post("/score", json=GOOD, headers={"X-Request-Timeout-Ms": given})
        assert answer.status_code == 200, answer.text


def test_504_on_time_and_a_late_request_is_never_computed(faulty):  # noqa: F811 - the fixture
    url, gate, ledger = faulty

    async def main():
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            gate.touch()
            first = asyncio.create_task(client.post("/score", json=BLOCKING))
            while not gate.with_name("blocked").exists():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)
            late = {"series": [{"prediction": [345.0], "target": [1.0]}]}
            answer = await client.post("/score", json=late, headers={"X-Request-Timeout-Ms": "150"})
            assert problem(answer, 504)["retryable"]
            assert not first.done(), "the device is still busy"
            gate.unlink()
            assert (await first).status_code == 200
            assert (await client.post("/score", json=GOOD)).status_code == 200

    asyncio.run(main())
    computed = ledger.read_text().split()
    assert "345.0" not in computed
    assert "777.0" in computed


def test_nothing_is_begun_in_a_thread_past_the_deadline(monkeypatch):
    def slow(*_):
        time.sleep(0.002)

    def begun(*_):
        raise AssertionError

    monkeypatch.setattr(Codec, "decode_common", slow)
    monkeypatch.setattr(Threads, "run", begun)
    start = Start()
    start.done = True
    app = create_app(Settings(), start=start)
    transport = httpx.ASGITransport(app)

    async def main():
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/score", json=GOOD, headers={"X-Request-Timeout-Ms": "1"})

    assert asyncio.run(main()).status_code == 504


@pytest.mark.parametrize("behind", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_the_request_of_a_broken_connection_is_never_computed(faulty, behind):  # noqa: F811
    url, gate, ledger = faulty
    gate.touch()
    body = json.dumps({"series": [{"prediction": [346.0], "target": [1.0]}]}).encode()
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    host, port = url.removeprefix("http://").split(":")
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=url, timeout=60) as client:
        first = pool.submit(client.post, "/score", json=BLOCKING)
        while not gate.with_name("blocked").exists():
            time.sleep(0.005)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body + behind)
            wait_for(client, "loss_scoring_queued_elements", 1)
        wait_for(client, "loss_scoring_queued_elements", 0)
        gate.unlink()
        assert first.result().status_code == 200
        assert client.post("/score", json=GOOD).status_code == 200
    assert "346.0" not in ledger.read_text().split()


def wait_for(client, gauge, value):
    for _ in range(6000):
        if total(client.get("/metrics").text, gauge) == value:
            return
        time.sleep(0.01)
    raise AssertionError(f"{gauge} is never {value}")


def test_a_body_that_does_not_come_meets_the_deadline(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'X-Request-Timeout-Ms: 100\r\nContent-Length: 100\r\n\r\n{"series":'
        )
        assert refused(connection)[0] == 504


def test_a_lost_device_fails_both_probes(faulty):  # noqa: F811 - the fixture
    url, _, _ = faulty
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/livez").is_success
        answer = client.post("/score", json={"series": [{"prediction": [888.0], "target": [1]}]})
        problem(answer, 500)
        for path in ("/livez", "/readyz"):
            problem(client.get(path), 503)
        assert "retry-after" in problem_headers(client.post("/score", json=GOOD), 503)


def problem_headers(answer, status):
    problem(answer, status)
    return answer.headers

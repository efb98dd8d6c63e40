"""Answers that drip, flood or are packed cost a call its time, and nothing else."""

import asyncio
import math
import socket
import threading
from contextlib import contextmanager, suppress

import httpcore
import httpx
import numpy as np
import pyarrow as pa
import pytest
from fake_service import answer, scores_of

from lossclient import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    TransportError,
    UnexpectedAnswer,
    wire,
)
from lossclient.reading import PACE, BoundedTransport, Reading, _Stream

ARROW = b"Content-Type: application/vnd.apache.arrow.stream\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n" + ARROW
DRIPS = {
    "a head": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "heads before the head": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "a body": (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a page": (b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\n", b"x"),
}


@contextmanager
def sending(first, again, pause_s=0.01):
    """Answer with endless bytes; yields the URL, an event for each connection that is closed."""
    closed = threading.Semaphore(0)
    stop = threading.Event()

    def send(connection):
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(first)
            while not stop.wait(pause_s):
                connection.sendall(again)
        closed.release()

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=send, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", closed
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)


def call(kind, url, *, times=1, **options):
    """Call a client so often in turn; returns the errors."""
    client = kind(url, retries=0, concurrency=1, **options)
    errors = []

    async def main():
        async with client:
            for _ in range(times):
                try:
                    await client.score_series([[1.0]], [[2.0]])
                except Exception as error:  # noqa: BLE001 - the tests look at it
                    errors.append(error)

    if kind is AsyncClient:
        asyncio.run(main())
        return errors
    with client:
        for _ in range(times):
            try:
                client.score_series([[1.0]], [[2.0]])
            except Exception as error:  # noqa: BLE001 - the tests look at it
                errors.append(error)
    return errors


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("drip", DRIPS)
def test_a_drip_is_silence_in_the_end(kind, drip):
    with sending(*DRIPS[drip]) as (url, closed):
        for error in call(kind, url, times=2, timeout=0.2):
            assert isinstance(error, TransportError)
            assert "Timeout" in str(error)  # on a busy machine it may be that of the connection
            assert closed.acquire(timeout=60)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("drip", DRIPS)
def test_the_deadline_closes_the_connection(kind, drip):
    with sending(*DRIPS[drip]) as (url, closed):
        for error in call(kind, url, times=2, deadline_s=0.2):
            assert isinstance(error, DeadlineExceeded)
            assert closed.acquire(timeout=60)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_flood_is_read_no_further_than_an_answer_can_be(kind):
    flood = (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(1 << 16) + b"\r\n")
    with sending(*flood, pause_s=0) as (url, closed):
        (error,) = call(kind, url)
        assert closed.acquire(timeout=60)
    assert isinstance(error, UnexpectedAnswer)
    assert "more than the 65" in str(error)  # 64 KiB and little more


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("status", [200, 500])
def test_what_is_packed_is_not_unpacked(kind, status):
    head = f"HTTP/1.1 {status} So\r\nContent-Encoding: br, gzip\r\n".encode() + ARROW
    with sending(head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n") as (url, closed):
        (error,) = call(kind, url)
        assert closed.acquire(timeout=60)
    assert "a body in the content coding br, gzip, which was not asked for" in str(error)


@pytest.mark.parametrize("kind", [httpx.Client, httpx.AsyncClient])
def test_no_coding_is_asked_for(kind):
    codings = []

    def respond(request):
        codings.append(request.headers["accept-encoding"])
        return answer(request)

    async def respond_later(request):
        return respond(request)

    headers = {"Accept-Encoding": "gzip"}
    if kind is httpx.Client:
        errors = call(Client, "http://x", transport=httpx.MockTransport(respond), headers=headers)
    else:
        transport = httpx.MockTransport(respond_later)
        errors = call(AsyncClient, "http://x", transport=transport, headers=headers)
    assert (codings, errors) == (["identity"], [])


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def test_how_long_an_answer_may_take():
    clock = Clock()
    reading = Reading(10 * PACE, 100, 10, clock)
    clock.now += 5
    assert reading.left_s() == 5
    reading.restart()
    assert reading.left_s() == 10
    assert reading.takes(bytes(PACE))
    assert reading.left_s() == 11
    clock.now += 11
    with pytest.raises(httpx.ReadTimeout):
        reading.takes(b"")
    assert reading.takes(bytes(9 * PACE))
    assert not reading.takes(b"x")
    clock.now = 150 - 0.5
    reading.restart()
    assert (reading.left_s(), reading.until_deadline_s()) == (0.5, 0.5)
    assert Reading(1, None, None, clock).left_s() == math.inf


class Socket(httpcore.NetworkStream):
    """Takes and gives all at once, and notes for how long it might have waited."""

    def __init__(self):
        self.waits = []

    def read(self, max_bytes, timeout=None):
        self.waits.append(("read", max_bytes, timeout))
        return b"x"

    def write(self, buffer, timeout=None):
        self.waits.append(("write", len(buffer), timeout))

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        return self


@pytest.mark.parametrize("tls", [False, True])
def test_reads_and_writes_share_what_is_left(tls):
    clock, stream = Clock(), Socket()
    bounded = _Stream(stream).start_tls(None) if tls else _Stream(stream)
    with Reading(1, 60, 20, clock).by_this_thread():
        clock.now += 15
        bounded.write(bytes((1 << 16) + 1), timeout=50)
        clock.now += 5
        bounded.read(7, timeout=30)
        clock.now += 15
        with pytest.raises(httpcore.ReadTimeout):
            bounded.read(7, timeout=30)
        clock.now += 25
        with pytest.raises(httpcore.WriteTimeout):
            bounded.write(b"x", timeout=30)
    with Reading(1, None, None, clock).by_this_thread():
        bounded.read(7)
        bounded.read(7, timeout=30)
    assert stream.waits == [
        ("write", 1 << 16, 45),
        ("write", 1, 45),
        ("read", 7, 15),
        ("read", 7, None),
        ("read", 7, 30),
    ]


@pytest.mark.parametrize("proxy", [None, "http://p:1"])
def test_connections_are_bounded(proxy):
    """What httpx and httpcore keep private is where it was."""
    pool = BoundedTransport(proxy=proxy)._pool
    connection = pool.create_connection(httpcore.Origin(b"http", b"127.0.0.1", 1))
    backend = (getattr(connection, "_connection", None) or connection)._network_backend
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = backend.connect_tcp(*listener.getsockname(), timeout=60)
        assert isinstance(stream, _Stream)
        stream.close()


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_buffers_that_unpack_are_not_unpacked(codec):
    def respond(request):
        table = scores_of(request)
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        type_ = {"content-type": wire.MEDIA_TYPE}
        return httpx.Response(200, content=sink.getvalue().to_pybytes(), headers=type_)

    (error,) = call(Client, "http://x", transport=httpx.MockTransport(respond))
    assert isinstance(error, UnexpectedAnswer)
    assert "its batches are compressed, which was not asked for" in str(error)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [[1], [3] * 500, [100_000], [1, 2, 70_000]])
def test_an_answer_is_within_its_bound(gradients, dtype, lengths):
    series = [np.ones(length, dtype) for length in lengths]
    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        scores = client.score_series(series, series, gradients=gradients)
    assert scores.losses["mae"].tolist() == [0] * len(lengths)

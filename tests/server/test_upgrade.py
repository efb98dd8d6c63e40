"""A request that asks for another protocol is answered as if it had not (RFC 9110, 7.8)."""

import json
import socket
from contextlib import contextmanager

import pytest
from fake_connection import Loop, Transport, connected
from instance import instance

BODY = b'{"losses":["mae"],"series":[{"prediction":[102.0,118.5],"target":[100.0,120.0]}]}'
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
UPGRADES = {
    "h2c": H2C,
    "http/2.0": b"upgrade: HTTP/2.0\r\nconnection: upgrade, keep-alive\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "tls": b"Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n",
    "twice": b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: foo/1\r\n",
    "not in Connection": b"Upgrade: h2c\r\n",
}
START = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
FRAMED = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n9\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (BODY[:9], len(BODY) - 9, BODY[9:]),
}


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "front ends"])
def port(request):
    with instance(frontends=request.param, device="cpu") as running:
        yield running.port


@contextmanager
def connection(port):
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        raw.makefile("rb") as reads,
    ):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield raw, reads


def answer(reads):
    """Return the status, the headers and the body of the next answer."""
    status = int(reads.readline().split()[1])
    headers = {}
    while line := reads.readline().strip():
        name, _, value = line.partition(b": ")
        headers[name.lower()] = value
    return status, headers, reads.read(int(headers.get(b"content-length", 0)))


def assert_scored(reads):
    status, headers, body = answer(reads)
    assert status == 200, body
    assert b"upgrade" not in headers
    assert json.loads(body)["losses"]["mae"] == [1.75]


@pytest.mark.parametrize("framed", FRAMED)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_it_is_scored_and_the_connection_goes_on(port, upgrade, framed):
    with connection(port) as (raw, reads):
        for head in (UPGRADES[upgrade], b"", UPGRADES[upgrade]):
            raw.sendall(START + head + FRAMED[framed])
            assert_scored(reads)


@pytest.mark.parametrize("framed", FRAMED)
def test_a_body_may_come_in_packets_and_requests_pipelined(port, framed):
    request = START + H2C + FRAMED[framed]
    with connection(port) as (raw, reads):
        for cut in range(10, len(request), 7):  # heads too: each byte may be the last of a packet
            raw.sendall(request[:cut])
            raw.sendall(request[cut:])
            assert_scored(reads)
        raw.sendall(request * 3)
        for _ in range(3):
            assert_scored(reads)


def test_a_go_ahead_is_given_and_the_end_of_the_connection_kept(port):
    with connection(port) as (raw, reads):
        head = START + b"Expect: 100-continue\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n"
        raw.sendall(head + b"Content-Length: %d\r\n\r\n" % len(BODY))
        assert reads.readline().startswith(b"HTTP/1.1 100 ")
        assert reads.readline() == b"\r\n"
        raw.sendall(BODY)
        assert_scored(reads)
        assert reads.read() == b""


def test_what_is_in_a_body_is_never_read_as_a_request(port):
    inner = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with connection(port) as (raw, reads):
        raw.sendall(START + H2C + b"Content-Length: %d\r\n\r\n" % len(inner))
        raw.sendall(inner)
        assert answer(reads)[0] == 400  # it is not JSON
        raw.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n")
        status, _, body = answer(reads)
        assert (status, json.loads(body)) == (200, {"status": "ready"})


def test_a_head_that_asks_for_an_upgrade_is_bounded_like_any():
    transport = Transport()
    protocol = connected(Loop(), transport)  # takes heads of 1000 bytes
    protocol.data_received(START + H2C + b"X: " + b"x" * 1000 + b"\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert protocol.cycle is None


@pytest.mark.parametrize(
    "length",
    [
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
    ],
)
def test_no_body_is_smuggled_with_two_lengths(length):
    transport = Transport()
    protocol = connected(Loop(), transport)
    protocol.data_received(START + H2C + length + b"\r\n0\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert protocol.cycle is None


@pytest.mark.parametrize("target", [b"127.0.0.1:22", b"x.example:443"])
@pytest.mark.parametrize("more", [b"", H2C, b"Content-Length: 3\r\n"])
def test_connect_is_refused(target, more):
    transport = Transport()
    protocol = connected(Loop(), transport)
    protocol.data_received(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n" + more + b"\r\nabc")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert b"CONNECT is a request to a proxy" in transport.written

"""Hostile HTTP on raw sockets: always a 4xx or a closed connection, and the server lives.

Each case says what may come back. A request smuggled in the body of another must not be answered:
``answers`` counts the status lines. It fails when the parser is lenient about lengths, or
when an exception gets through (5xx).
"""

import contextlib
import re
import socket
from collections import Counter

import httpx
from finding import Finding, at_least, at_most
from instance import Instance, instance
from traffic import post, tagged

GOOD = post(tagged(1.0))
BODY = tagged(1.0)
START = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)

REFUSED: dict[str, bytes] = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "noise": bytes(range(256)) * 20,
    "a future version": b"GET /livez HTTP/3.7\r\nHost: x\r\n\r\n",
    "NUL in the target": b"GET /live\x00z HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "NUL in a name": b"GET /livez HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a space before the colon": START + b"Content-Length : 5\r\n\r\n12345",
    "a folded length": START + b"Content-Length:\r\n 5\r\n\r\n12345",
    "two lengths": START + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "a list of lengths": START + b"Content-Length: 5, 5\r\n\r\n12345",
    "a negative length": START + b"Content-Length: -1\r\n\r\n" + BODY,
    "a signed length": START + b"Content-Length: +5\r\n\r\n12345",
    "a hexadecimal length": START + b"Content-Length: 0x5\r\n\r\n12345",
    "a length beyond 64 bits": START + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a length of 2^63": START + b"Content-Length: 9223372036854775807\r\n\r\n",
    "CL.TE": START + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE.CL": START + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + SMUGGLED,
    "TE of identity": START + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "TE misspelt": START + b"Transfer-Encoding: xchunked\r\n" + LENGTH + b"\r\n" + BODY,
    "a bad chunk size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    "an empty chunked body": CHUNKED + b"0\r\n\r\n",
    "a body without a length": START + b"\r\n" + BODY,
    "no body": START + b"Content-Length: 0\r\n\r\n",
    "a type of garbage": b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\xfe;;=\r\n" + LENGTH + b"\r\n" + BODY,
    "a query of garbage": START.replace(b"/score", b"/score?%ff=%00&&=&a[]=%zz") + LENGTH + b"\r\n" + BODY,
    "a coded body": START + b"Content-Encoding: br\r\n" + LENGTH + b"\r\n" + BODY,
    "a path upwards": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a proxy's target": b"GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TRACE": b"TRACE /score HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of garbage": b"G@T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 30,
}  # fmt: skip
SERVED: dict[str, bytes] = {
    "a good request": GOOD,
    "a chunked one": CHUNKED + CHUNK + b"0\r\n\r\n",
    "a chunk extension": CHUNKED + CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\nT: x\r\n\r\n",
    "another protocol": GOOD.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 1),
    "a request id of garbage": GOOD.replace(b"\r\n\r\n", b"\r\nX-Request-Id: \xff'\"<script>\r\n\r\n", 1),
}  # fmt: skip
JSON_HEAD = b"Host: x\r\nContent-Type: application/json\r\n"
OVER_1_0 = b"POST /score HTTP/1.0\r\n" + JSON_HEAD
EXPECTS = LENGTH + b"Expect: 100-continue\r\n"
PRESCRIBED: dict[str, tuple[bytes, list[int]]] = {
    "blanks around a length": (
        START + b"Content-Length: \t%d \t\r\n\r\n" % len(BODY) + BODY,
        [200],
    ),
    "zeros before a length": (START + b"Content-Length: %05000d\r\n\r\n" % len(BODY) + BODY, [200]),
    "a go-ahead": (START + EXPECTS + b"\r\n" + BODY, [100, 200]),
    "no go-ahead over HTTP/1.0": (OVER_1_0 + EXPECTS + b"\r\n" + BODY, [200]),
    "another expectation": (START + LENGTH + b"Expect: gold\r\n\r\n" + BODY, [417]),
    "no Host": (b"GET /livez HTTP/1.1\r\n\r\n", [400]),
    "no Host over HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", [200]),
    "two Hosts": (b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", [400]),
    "an invalid Host": (b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", [400]),
    "a coded transfer": (
        START + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
        [501],
    ),
    "a transfer without end": (START + b"Transfer-Encoding: gzip\r\n\r\n" + BODY, [400]),
    "a transfer over HTTP/1.0": (
        OVER_1_0 + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
        [400],
    ),
    "a URL for a target": (b"GET http://a.example/livez HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
    "a star for a target": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "an unknown method": (b"FETCH /livez HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "a method that no path takes": (b"TRACE /livez HTTP/1.1\r\nHost: x\r\n\r\n", [405]),
}
"""What RFC 9110 and 9112 say of a head, and the statuses of its answers."""
LIMIT_S = 3.0


def exchange(running: Instance, data: bytes, seconds: float = LIMIT_S) -> list[int]:
    """Send bytes as they are; the statuses of all answers."""
    received = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", running.port), timeout=seconds) as one,
    ):
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while part := one.recv(65536):
            received += part
    assert b"Traceback" not in received
    return statuses_in(received)


def statuses_in(received: bytes) -> list[int]:
    """Every status line counts, wherever it stands: bodies here have no line like it."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def pipeline(running: Instance, count: int) -> list[int]:
    """Send requests at once and read until all are answered."""
    received = b""
    with socket.create_connection(("127.0.0.1", running.port), timeout=LIMIT_S) as one:
        one.sendall(GOOD * count)
        with contextlib.suppress(OSError):
            while received.count(b"HTTP/1.1 ") < count:
                part = one.recv(65536)
                received += part
                if not part:
                    break
    return statuses_in(received)


def findings(running: Instance, rounds: int) -> list[Finding]:
    """Judge a running service; its deadline should be short."""
    wrong: Counter[str] = Counter()
    sent = 0
    # The first request waits for machine code, and a client that ends meanwhile gets no answer.
    assert pipeline(running, 1) == [200]
    for _ in range(rounds):
        for name, data in REFUSED.items():
            statuses = exchange(running, data)
            sent += 1
            if any(not 400 <= s < 500 and s != 501 for s in statuses):
                wrong[f"{name}: {statuses}"] += 1
        for name, data in SERVED.items():
            statuses = exchange(running, data)
            sent += 1
            if statuses != [200]:
                wrong[f"{name}: {statuses}"] += 1
    heads = {name: exchange(running, data) for name, (data, _) in PRESCRIBED.items()}
    otherwise = {name: found for name, found in heads.items() if found != PRESCRIBED[name][1]}
    pipelined = pipeline(running, 50)
    alive = running.alive and httpx.get(f"{running.url}/readyz", timeout=30).is_success
    log = running.log_text()
    for name, count in wrong.items():
        print(f"{count} x {name}")
    print(*(f"{name}: {found}" for name, found in otherwise.items()), sep="\n")
    return [
        at_most(f"of {sent} hostile requests answered otherwise than 4xx or by closing",
                wrong.total(), 0),
        at_most(f"of {len(heads)} heads answered otherwise than RFC 9112 says", len(otherwise), 0),
        at_least("pipelined requests answered, of 50", pipelined.count(200), 50),
        at_most("unexpected errors in the log", log.count("unexpected error"), 0),
        at_least("alive and ready afterwards", alive, 1),
    ]  # fmt: skip


def run(rounds: int = 20) -> list[Finding]:
    with instance(default_timeout_ms=5000) as running:
        return findings(running, rounds)

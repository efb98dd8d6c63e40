"""A head without an end is refused before it takes memory.

64 MiB of one header are sent. It fails when the parser keeps whatever comes until the end of the
head, as uvicorn does by itself.
"""

import contextlib
import socket

import httpx
from finding import Finding, at_least, at_most
from instance import MEBI, Instance, instance


def _send(running: Instance, size: int) -> None:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", running.port), timeout=5) as one,
    ):
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Big: ")
        for _ in range(size // 65536):
            one.sendall(b"a" * 65536)


def run(size: int = 64 * MEBI) -> list[Finding]:
    with instance() as running:
        before = running.resident_bytes
        running.reset_peak()
        _send(running, size)
        grown = (running.peak_bytes - before) / MEBI
        ready = running.alive and httpx.get(f"{running.url}/readyz", timeout=30).is_success
    return [
        at_most(f"growth while a head of {size / MEBI:.0f} MiB comes", grown, 8, "MiB"),
        at_least("ready afterwards", ready, 1),
    ]

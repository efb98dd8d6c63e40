"""Requests sent faster than they are answered take no memory and not the place of others.

One connection pipelines a request of 26 bytes, and reads all answers; others ask
for /livez beside it. It fails when requests are parsed as they come, as uvicorn does by itself: an
object each, and a read of them at once.
"""

import contextlib
import socket
import threading
import time

import httpx
from finding import Finding, at_least, at_most
from instance import MEBI, Instance, instance

TINY = b"GET /x HTTP/1.1\r\nHost:\r\n\r\n"


class Flood:
    """Sends and reads in two threads until told to end."""

    def __init__(self, port: int) -> None:
        self.sent = self.answers = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._threads = [threading.Thread(target=f) for f in (self._send, self._read)]
        self._ended = False
        for one in self._threads:
            one.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended:
                self._socket.sendall(TINY * 1000)
                self.sent += 1000

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while received := self._socket.recv(MEBI):
                self.answers += received.count(b"HTTP/1.1 404 ")

    def end(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for one in self._threads:
            one.join()
        self._socket.close()


def findings(running: Instance, seconds: float) -> tuple[list[Finding], float]:
    """Judge a running service; also return the longest that another waited."""
    slowest = 0.0
    httpx.get(f"{running.url}/nowhere", timeout=30)
    before = running.resident_bytes
    running.reset_peak()
    flood = Flood(running.port)
    try:
        end = time.monotonic() + seconds
        with httpx.Client(timeout=30) as other:  # to make one takes longer than an answer
            while (asked := time.monotonic()) < end:
                other.get(f"{running.url}/livez").raise_for_status()
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(0.05)
    finally:
        flood.end()
    grown = (running.peak_bytes - before) / MEBI
    print(f"{flood.sent} requests sent, {flood.answers} answered")
    ready = running.alive and httpx.get(f"{running.url}/readyz", timeout=30).is_success
    return [
        at_most("growth while one connection pipelines without end", grown, 8, "MiB"),
        at_least("requests of it answered", flood.answers, 100),
        at_least("ready afterwards", ready, 1),
    ], slowest


def run(seconds: float = 20) -> list[Finding]:
    with instance() as running:
        found, slowest = findings(running, seconds)
    return [*found, at_most("longest wait of another for /livez", slowest, 0.5, "s")]

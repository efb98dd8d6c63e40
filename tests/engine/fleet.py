"""A supervised service with a faulty worker, its processes, and requests to it."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
from conftest import free_port

FAULTY_WORKER = Path(__file__).with_name("faulty_worker.py")
LIMITS = {"INLINE_ELEMENTS": 0, "IDLE_INLINE_ELEMENTS": 0, "DEVICE": "cpu", "LOG_LEVEL": "warning"}


def stat_of(pid):
    """Return the state and the parent of a process, None if there is none."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        state, parent, *_ = text.rpartition(")")[2].split()
        return state, int(parent)
    return None


def children(pid):
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return {child for child in pids if (stat_of(child) or (None, 0))[1] == pid}


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return result


class Fleet:
    """A running service.

    Attributes:
        url: Where it listens.
        folder: Holds gate and ledger of the faulty worker.
        running: The supervisor.
    """

    def __init__(self, folder, frontends, **limits):
        self.folder = folder
        self.gate = folder / "gate"
        self.blocked = folder / "blocked"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        given = {**LIMITS, "FRONTENDS": frontends, **limits}
        self.running = subprocess.Popen(
            [sys.executable, FAULTY_WORKER, folder, "--port", str(port)],
            env=os.environ | {f"LOSS_SCORING_{name}": str(value) for name, value in given.items()},
        )
        self._frontends = frontends

    @property
    def nursery(self):
        return next(pid for pid in children(self.running.pid) if self._is(pid, b"faulty_worker"))

    @property
    def worker(self):
        """The worker of the moment, waited for."""
        return wait_until(lambda: next(iter(children(self.nursery)), None))

    @property
    def frontends(self):
        return {pid for pid in children(self.running.pid) if self._is(pid, b"frontend")}

    @staticmethod
    def _is(pid, word):
        with contextlib.suppress(OSError):
            return word in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def ledger(self):
        """Return each batch: the process, and what its predictions start with."""
        lines = (self.folder / "ledger").read_text().splitlines()
        batches = [json.loads(line) for line in lines]
        return [(pid, firsts) for pid, firsts in batches if firsts != [1.0, 1.0]]  # warming up

    def wait_until_ready(self):
        """Wait until all front ends answer: one socket, so ask until each has."""
        seen = set()

        def all_ready():
            assert self.running.poll() is None
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}/readyz")
                if answer.is_success:
                    seen.add(frontend_of(answer))
            return len(seen) >= self._frontends

        wait_until(all_ready, 100)

    async def unanswered(self, elements):
        """Wait until the front ends together have so many elements that are not answered."""
        told = -1.0
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while told != elements:
                answer = await client.get(f"{self.url}/metrics")
                gauge = re.search(r"^loss_scoring_queued_elements (\S+)", answer.text, re.MULTILINE)
                told = float(gauge[1])
        await asyncio.sleep(0.2)  # on their way to the worker

    def client(self):
        return httpx.Client(base_url=self.url, timeout=60)

    def async_client(self, connections=64):
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits)


def frontend_of(answer):
    """Tell front ends apart: each makes request ids that begin alike."""
    return answer.headers["x-request-id"][:20]


@contextlib.contextmanager
def fleet(folder, frontends=2, **limits):
    one = Fleet(folder, frontends, **limits)
    try:
        one.wait_until_ready()
        yield one
    finally:
        one.gate.unlink(missing_ok=True)
        one.running.terminate()
        try:
            one.running.wait(30)
        finally:
            one.running.kill()


def body_of(*firsts, losses=("mae",)):
    series = [{"prediction": [float(first)], "target": [0.0]} for first in firsts]
    return {"losses": list(losses), "series": series}


async def post(client, *firsts, **headers):
    return await client.post("/score", json=body_of(*firsts), headers=headers)


async def block(client, one):
    """Occupy the device until the gate file goes; return the task of the request that does."""
    one.blocked.unlink(missing_ok=True)
    one.gate.touch()
    task = asyncio.create_task(post(client, 777.0))
    async with asyncio.timeout(20):
        while not one.blocked.exists():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
    return task

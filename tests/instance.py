"""A real ``loss-scoring serve``, started here for all tests and watched from outside.

``SERVE`` is the command as users have it, ``faulty`` the same with a device that misbehaves. A
service of several processes is seen as one: its memory, descriptors, threads and processor time are
those of the whole family. Memory that processes share counts in each that maps it, so a bound
on the sum is a bound on what is used.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import family
import httpx

HERE = Path(__file__).resolve().parent
LOSS_SCORING = Path(sys.executable).with_name("loss-scoring")
SERVE = (LOSS_SCORING, "serve")
QUEUED = {"inline_elements": 0, "idle_inline_elements": 0}
"""Settings with which every request goes to the device, and so through batches."""
MEBI = 1 << 20


def supervised(part: str, script: Path) -> tuple[str | Path, ...]:
    """Return the command of a service whose ``worker`` or ``frontend`` is a script of ours."""
    return sys.executable, HERE / "supervised.py", part, script


def faulty(frontends: int = 0) -> tuple[str | Path, ...]:
    """Return the command of a service with the device of ``faulty_device.py``."""
    script = HERE / "faulty_device.py"
    return supervised("worker", script) if frontends else (sys.executable, script, "serve")


@dataclass
class Instance:
    """A running service.

    Attributes:
        port: Where it listens.
        process: The one that was started: the whole service, or its supervisor.
        folder: Holds the log, and what a faulty device looks for and leaves behind.
        fronts: How many front ends it has; 0 if all is one process.
    """

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    fronts: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def gate(self) -> Path:
        """While it exists, the faulty device is held by whom it is told to be held by."""
        return self.folder / "gate"

    @property
    def blocked(self) -> Path:
        """Exists once the faulty device is held."""
        return self.folder / "blocked"

    def ledger(self) -> list[list[tuple[float, int]]]:
        """Return each batch that a faulty device began: the first value and length of series."""
        lines = (self.folder / "ledger").read_text().splitlines()
        return [[tuple(row) for row in json.loads(line)] for line in lines]

    @property
    def fork_server(self) -> int:
        """The parent of the workers, waited for."""
        return family.wait_until(lambda: next(filter(_is_fork_server, self.children), None))

    @property
    def worker(self) -> int:
        """The worker of the moment, waited for."""
        return family.wait_until(lambda: next(iter(family.children(self.fork_server)), None))

    @property
    def frontends(self) -> set[int]:
        return {pid for pid in self.children if not _is_fork_server(pid)}

    @property
    def children(self) -> set[int]:
        return family.children(self.process.pid)

    @property
    def family(self) -> list[int]:
        return family.family(self.process.pid)

    @property
    def resident_bytes(self) -> int:
        return sum(map(family.resident, self.family))

    @property
    def peak_bytes(self) -> int:
        return sum(map(family.peak, self.family))

    @property
    def threads(self) -> int:
        return sum(map(family.threads, self.family))

    @property
    def descriptors(self) -> int:
        return sum(map(family.descriptors, self.family))

    @property
    def cpu_seconds(self) -> float:
        return sum(map(family.cpu_seconds, self.family))

    def reset_peak(self) -> None:
        """Make the peak begin at what is resident now."""
        for pid in self.family:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def await_ready(self) -> None:
        """Ask until all front ends have answered that they are, who accepts being chance."""
        seen = set()
        end = time.monotonic() + 240  # the first start compiles the kernels
        while len(seen) < max(self.fronts, 1):
            if not self.alive:
                raise RuntimeError(f"the service ended: {self.log_text()}")
            if time.monotonic() > end:
                raise TimeoutError("some front end is not ready")
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}/readyz", timeout=60)
                if answer.is_success:
                    seen.add(front_of(answer.headers))
                    continue
            time.sleep(0.02)

    def metric(self, name: str) -> float:
        """Return a metric; any front end tells of all."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout: float) -> float:
        """Wait for the end; NaN if it does not come."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return float("nan")


def _is_fork_server(pid: int) -> bool:
    command = family.command_of(pid)
    return b"service.processes.worker" in command or b"faulty_device" in command


def front_of(headers: Mapping[str, str]) -> str:
    """Tell front ends apart: each makes request ids that begin alike."""
    return headers["x-request-id"][:-12]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def instance(
    command: Sequence[str | Path] = SERVE,
    *,
    port: int | None = None,
    nofile: int | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: object,
) -> Iterator[Instance]:
    """Start a service with settings, yield it once it is ready, kill it at the end.

    Its output goes to a file: a pipe that nobody reads would stop it.
    """
    port = port or free_port()
    given = {f"LOSS_SCORING_{k.upper()}": str(v) for k, v in ({"port": port} | settings).items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "log").open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                env=os.environ | given | {"CHAOS_DIR": name} | (environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Instance(port, process, folder, int(str(settings.get("frontends", 0))))
        try:
            running.await_ready()
            if nofile is not None:
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (nofile, nofile))
            yield running
        finally:
            if running.alive:
                process.kill()
            process.wait()


@contextlib.contextmanager
def stopped_at_the_end(running: Instance) -> Iterator[Instance]:
    """End a service by SIGTERM, show its log, and hold it to an exit status of 0."""
    try:
        yield running
    finally:
        running.gate.unlink(missing_ok=True)
        running.signal()
        code = running.exit_code(120)
        sys.stderr.write(running.log_text())
    assert code == 0, f"the service exited {code}:\n{running.log_text()}"


@contextlib.contextmanager
def serving(*command: str | Path, **environment: str) -> Iterator[str]:
    """Run a command, yield its base URL, and stop it as an operator would."""
    with instance(command, environment=environment) as running, stopped_at_the_end(running):
        yield running.url

"""A real ``loss-scoring serve`` process, watched from outside through /proc.

``FAULTY`` is the same command with a device that misbehaves (``faulty_device.py``). A service of
several processes would be started here too, with ``Instance.workers`` to find whom to kill.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from conftest import free_port

LOSS_SCORING = Path(sys.executable).with_name("loss-scoring")
SERVE = (LOSS_SCORING, "serve")
FAULTY = (sys.executable, Path(__file__).with_name("faulty_device.py"), "serve")
MEBI = 1 << 20


@dataclass
class Instance:
    """A running service. Its output goes to a file: a pipe that nobody reads would stop it."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(x for x in text.splitlines() if x.startswith(f"{field}:")).split()[1])

    @property
    def resident_bytes(self) -> int:
        return self._status("VmRSS") * 1024

    @property
    def peak_bytes(self) -> int:
        return self._status("VmHWM") * 1024

    @property
    def threads(self) -> int:
        return self._status("Threads")

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_peak(self) -> None:
        """Make the peak begin at what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return float(next(x for x in lines if x.startswith(f"{name} ")).split()[1])

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout: float) -> float:
        """Wait for the end; NaN if it does not come."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return float("nan")


def await_ready(instance: Instance) -> None:
    deadline = time.monotonic() + 110  # the first start compiles the kernels
    while time.monotonic() < deadline:
        if not instance.alive:
            raise RuntimeError(f"the service ended: {instance.log_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{instance.url}/readyz", timeout=30).is_success:
                return
        time.sleep(0.05)
    raise TimeoutError("the service was not ready in time")


@contextlib.contextmanager
def instance(
    command: Sequence[str | Path] = SERVE,
    *,
    port: int | None = None,
    nofile: int | None = None,
    environment: dict[str, str] | None = None,
    **settings: object,
) -> Iterator[Instance]:
    """Start a service with settings and yield it once it is ready; kill it at the end."""
    port = port or free_port()
    env = os.environ | {f"LOSS_SCORING_{k.upper()}": str(v) for k, v in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                env=env | (environment or {}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Instance(port, process, log)
        try:
            await_ready(running)
            if nofile is not None:
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (nofile, nofile))
            yield running
        finally:
            if running.alive:
                process.kill()
            process.wait()

"""A container of the image, run as a cluster would run it: confined, and with little memory."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from build import output

PODMAN = ("podman", "--cgroup-manager", "cgroupfs", "--runtime", "/usr/sbin/runc")
CONFINED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:size=64m"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--pids-limit", "200"),
    *("--health-interval", "disable"),  # it is run by hand: the timer would be systemd's
)
_START_S, _STOP_S = 120, 30


@dataclass
class Container:
    """A running container.

    Attributes:
        name: Its name.
        port: Where the service in it listens.
        ready_s: Seconds from the start until it was ready.
        before: Ends of the health check before that.
    """

    name: str
    port: int
    ready_s: float = 0.0
    before: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inside(self, *command: str) -> str:
        """Run a command in it; returns what it prints."""
        return output(*PODMAN, "exec", self.name, *command)

    def health(self) -> int:
        """Return the exit status of the image's health check."""
        command = json.loads(self.inspect("{{json .Config.Healthcheck.Test}}"))
        assert command[0] == "CMD", command  # no shell
        run = [*PODMAN, "exec", self.name, *command[1:]]
        return subprocess.run(run, capture_output=True, check=False).returncode

    def inspect(self, what: str) -> str:
        return output("podman", "inspect", "--format", what, self.name)

    def log(self) -> str:
        run = [*PODMAN, "logs", self.name]
        done = subprocess.run(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode()

    def peak_mb(self) -> float:
        """Return the most memory that all its processes had at once, caches of files included."""
        pid = self.inspect("{{.State.Pid}}")
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        for line in groups:
            _, kind, path = line.split(":", 2)
            if kind == "memory":
                file = Path("/sys/fs/cgroup/memory", path[1:], "memory.max_usage_in_bytes")
            elif not kind:
                file = Path("/sys/fs/cgroup", path[1:], "memory.peak")
            else:
                continue
            if file.exists():
                return int(file.read_text()) / 1e6
        return float("nan")

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM as an orchestrator does; returns the exit status and the seconds it took."""
        started = time.monotonic()
        output(*PODMAN, "kill", "--signal", "TERM", self.name)
        output(*PODMAN, "wait", self.name)
        return int(self.inspect("{{.State.ExitCode}}")), time.monotonic() - started


@contextlib.contextmanager
def container(
    image: str, memory: str, options: Sequence[str] = (), **settings: object
) -> Iterator[Container]:
    """Run the image until its service is ready; remove the container in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"loss-scoring-test-{port}"
    settings |= {"LOSS_SCORING_PORT": port, "LOSS_SCORING_HOST": "127.0.0.1"}
    environment = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
    started = time.monotonic()
    run = ("run", "--detach", "--name", name, "--memory", memory, *CONFINED, *environment)
    try:
        output(*PODMAN, *run, *options, image)
        running = Container(name, port)
        while not _ready(running):
            if time.monotonic() - started > _START_S or running.inspect(
                "{{.State.Status}}"
            ) not in {"running", "created"}:
                raise RuntimeError(f"it does not start:\n{running.log()[-3000:]}")
            time.sleep(0.1)
        running.ready_s = time.monotonic() - started
        yield running
    finally:
        subprocess.run(
            [*PODMAN, "rm", "--force", "--time", str(_STOP_S), name],
            capture_output=True,
            check=False,
        )


def _ready(running: Container) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{running.url}/readyz").is_success
    return False

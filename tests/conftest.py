"""A real service in its own process, over real sockets."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

# The first example compiles kernels, and how long that takes decides nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(*command: str | Path, **environment: str) -> Iterator[str]:
    """Run a command with ``--port`` added, and yield its base URL once it is ready."""
    port = free_port()
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
        sys.stderr.write(output)
    assert process.returncode == 0, f"the service exited {process.returncode}:\n{output}"


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 110  # the first start compiles the kernels
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service exited {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.05)
    raise TimeoutError("the service was not ready in time")


LOSS_SCORING = Path(sys.executable).with_name("loss-scoring")


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with serving(LOSS_SCORING, "serve") as base:
        yield base


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as one:
        yield one


@pytest.fixture(scope="session")
def real_json() -> bytes:
    path = SHARED / "series_small.json"
    return (path if path.exists() else ROOT / "examples/data/request.json").read_bytes()

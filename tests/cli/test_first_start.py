"""A start with cold caches: it logs that it compiles, and probes answer that it is starting."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from family import wait_until
from instance import SERVE, free_port, instance

GOOD = {"series": [{"prediction": [1.0], "target": [3.0]}]}
STARTING = "starting for "


@pytest.fixture(params=[0, 1], ids=["one process", "front ends"])
def cold(request, tmp_path):
    """Start a service that compiles; yield a client, and what it logged."""
    port = free_port()
    given = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "LOSS_SCORING_LOG_FORMAT": "text"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SERVE, "--port", str(port), "--device", "cpu", "--frontends", str(request.param)],
            env=os.environ | given,
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: answers(client))
            yield client, log
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def answers(client):
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_probes_and_requests_are_answered_while_it_compiles(cold):
    client, log = cold
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["detail"].startswith(STARTING)
    asked = time.monotonic()
    refused = client.post("/score", json=GOOD)
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    problem = refused.json()
    assert problem["retryable"]
    assert problem["detail"].startswith(STARTING)
    assert time.monotonic() - asked < 30
    hurried = client.post("/score", json=GOOD, headers={"X-Request-Timeout-Ms": "100"})
    assert hurried.status_code == 503
    assert hurried.json()["detail"].startswith(STARTING)
    assert int(hurried.headers["retry-after"]) > 0
    assert 'refusals_total{reason="starting"}' in client.get("/metrics").text
    assert client.get("/losses").status_code == 200
    wait_until(lambda: "compiling what no cache has" in log.read_text())
    assert "listening on http://127.0.0.1:" in log.read_text()
    assert "ready after" not in log.read_text()
    assert "running" not in log.read_text()


@pytest.mark.parametrize("frontends", [0, 1])
def test_it_says_when_it_is_ready(frontends):
    with instance(frontends=frontends, device="cpu", log_format="text") as running:
        log = running.log_text()
        assert httpx.post(f"{running.url}/score", json=GOOD).json()["losses"]["mae"] == [2.0]
        assert log.index("listening on") < log.index("Uvicorn running on http://127.0.0.1:")
        assert "compiling" not in log
        if frontends:
            wait_until(
                lambda: (
                    "ready after" in running.log_text()
                    and "the worker on cpu" in running.log_text()
                )
            )


def test_a_start_that_fails_ends_the_service():
    script = """
import asyncio, sys
from loss_scoring.service.app import create_app
from loss_scoring.service.server.run import run_server
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.api.start import Start
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics
import torch

class Broken(DeviceWorker):
    def warm_up(self):
        raise RuntimeError("no such device")

settings, metrics, start = Settings(port=0), Metrics(), Start(background=True)
app = create_app(settings, Broken(torch.device("cpu")), metrics, start=start)
run_server(app, settings, metrics, start)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 3
    assert "the service cannot start" in ended.stderr
    assert "no such device" in ended.stderr

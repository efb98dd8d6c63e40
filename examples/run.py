"""Start the service, score a real example, print the scores, leave the service running."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".run"
PID, LOG = STATE / "service.pid", STATE / "service.log"
REQUEST = ROOT / "examples" / "data" / "request.json"


def running() -> int | None:
    """Return the pid of the service that an earlier run left, if it still lives."""
    try:
        pid = int(PID.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    command = Path(f"/proc/{pid}/cmdline")  # a pid may have been given to another program
    if command.exists() and b"loss-scoring" not in command.read_bytes():
        return None
    return pid


def start(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"Port {port} is taken by another program; try: make run PORT={port + 1}")
    STATE.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        service = subprocess.Popen(
            [Path(sys.executable).with_name("loss-scoring"), "serve", "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    PID.write_text(str(service.pid))
    print("Starting the service; its first start compiles the kernels, which takes a minute.")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if service.poll() is not None:
            sys.exit(f"The service did not start:\n{LOG.read_text()}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    service.terminate()
    sys.exit(f"The service was not ready within 300 s; its log is {LOG}")


def stop() -> None:
    pid = running()
    if pid is None:
        print("No service is running.")
    else:
        os.kill(pid, signal.SIGTERM)
        while running() == pid:  # it finishes what it accepted
            time.sleep(0.05)
        print(f"Stopped the service (pid {pid}).")
    PID.unlink(missing_ok=True)


def score(url: str) -> None:
    body = REQUEST.read_bytes()
    answer = httpx.post(f"{url}/score", content=body, headers={"Content-Type": "application/json"})
    answer.raise_for_status()
    scores = answer.json()
    losses = list(scores["losses"])
    table = Table("series", "length", *losses, title=f"POST {url}/score")
    rows = zip(scores["ids"], scores["lengths"], *scores["losses"].values(), strict=True)
    for name, length, *values in rows:
        table.add_row(str(name), str(length), *(f"{value:.4f}" for value in values))
    Console(width=max(100, Console().width)).print(table)
    options = {key: value for key, value in json.loads(body).items() if key != "series"}
    print(f"Options: {options}; the answer also holds a gradient per element.")
    print(f"Server-Timing: {answer.headers['server-timing']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--stop", action="store_true", help="stop the service and exit")
    arguments = parser.parse_args()
    if arguments.stop:
        stop()
        return
    pid = running()
    if pid is not None:
        print(f"Replacing the service that runs as pid {pid}.")
        stop()
    start(arguments.port)
    url = f"http://127.0.0.1:{arguments.port}"
    score(url)
    print(f"The service keeps running at {url} (a page to try: {url}/); make stop ends it.")


if __name__ == "__main__":
    main()

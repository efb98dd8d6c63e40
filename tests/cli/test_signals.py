"""Signals to a server that starts, in a process of its own: it is not to swallow them."""

import subprocess
import sys

SERVER = """
import asyncio, gc, os, signal
from service.cli.serve import run_server
from service.settings import Settings
from service.telemetry.metrics import Metrics

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown":
            print("draining", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)  # as for a device that hangs
        await send({"type": kind + ".complete"})

def collect():
    os.kill(os.getpid(), signal.SIGTERM)

gc.collect = collect  # it is called between the start and uvicorn's
run_server(app, Settings(port=0), Metrics())
"""


def test_a_signal_amid_the_start_ends_the_server_and_a_second_one_at_once():
    command = [sys.executable, "-c", SERVER]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (1, "draining\n"), ended.stderr

"""Signals to a server that starts, in a process of its own: it is not to swallow them."""

import subprocess
import sys

import pytest

SERVER = """
import asyncio, gc, os, signal, time
import uvicorn
from loss_scoring.service.server.run import run_server
from loss_scoring.service.api.start import Start
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

start = Start(background=True)

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown":
            print("draining", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)  # as for a device that hangs
        await send({"type": kind + ".complete"})

def stop(*_):
    os.kill(os.getpid(), signal.SIGTERM)

{when}
run_server(app, Settings(port=0), Metrics(), start)
"""
BEFORE_UVICORN = "gc.collect = stop  # it is called between the start and uvicorn's"
COMPILING = """
def compile_in_a_thread():
    stop()
    time.sleep(60)

async def app(scope, receive, send):
    await asyncio.get_running_loop().run_in_executor(None, compile_in_a_thread)
"""
STARTED = """
start.done = True
startup = uvicorn.Server.startup

async def started(*arguments, **options):
    await startup(*arguments, **options)
    stop()

uvicorn.Server.startup = started
"""
ACCEPTED = """
start.done = True
startup = uvicorn.Server.startup

async def accepted(self, *arguments, **options):
    self.server_state.connections.add(None)
    stop()
    await asyncio.sleep(0.1)
    self.server_state.connections.clear()
    await startup(self, *arguments, **options)

uvicorn.Server.startup = accepted
"""


def run(when: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", SERVER.replace("{when}", when)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("when", [BEFORE_UVICORN, COMPILING])
def test_a_signal_amid_the_start_ends_the_server_at_once(when):
    code, shown, log = run(when)
    assert (code, shown) == (0, ""), log


@pytest.mark.parametrize("when", [STARTED, ACCEPTED])
def test_a_later_signal_drains_and_a_second_one_ends_at_once(when):
    code, shown, log = run(when)
    assert (code, shown) == (1, "draining\n"), log


STUCK = """
import signal, threading, time
import uvicorn
from loss_scoring.service.server.run import run_server
from loss_scoring.service.api.start import Start
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

start = Start(background=True)
start.done = True

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        kind = (await receive())["type"]
        {where}
        await send({"type": kind + ".complete"})

class Server(uvicorn.Server):
    async def startup(self, *arguments, **options):
        await uvicorn_startup(self, *arguments, **options)
        signal.raise_signal(signal.SIGTERM)

uvicorn_startup, uvicorn.Server.startup = uvicorn.Server.startup, Server.startup
run_server(app, Settings(port=0, shutdown_s=1), Metrics(), start)
"""
IN_A_THREAD = "threading.Thread(target=time.sleep, args=(1000,)).start()"
ON_THE_EVENT_LOOP = 'kind == "lifespan.shutdown" and time.sleep(1000)'


@pytest.mark.parametrize("where", [IN_A_THREAD, ON_THE_EVENT_LOOP])
def test_the_process_ends_whatever_is_stuck(where):
    command = [sys.executable, "-c", STUCK.replace("{where}", where)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr

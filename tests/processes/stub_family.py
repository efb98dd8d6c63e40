"""A supervisor of children that score nothing and start at once, in the place of the real ones.

``stub_family.py supervisor KIND`` supervises front ends of a kind: ``serving`` ones are ready, and
on SIGTERM say so much that somebody has to listen before they end; ``starting`` ones never are;
``parenting`` ones have a child that outlives them, which the supervisor inherits as PID 1 would.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time

LAST_WORDS = 2000
"""More than lie unread in a socket."""
_PR_SET_CHILD_SUBREAPER = 36


def supervise(kind: str) -> int:
    # Here, since the children are to start at once.
    from loss_scoring.service.processes.supervisor import Supervisor
    from loss_scoring.service.settings import Settings
    from loss_scoring.service.telemetry.logs import configure

    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
    settings = Settings.from_environment()
    configure(settings, "supervisor")
    worker, frontend = ([sys.executable, "-S", __file__, part] for part in ("worker", kind))
    return Supervisor(settings, worker, frontend).run()


def say(control: socket.socket, **message: int) -> None:
    control.send(json.dumps(message).encode())


def live(kind: str, parent: int, control: socket.socket) -> None:
    if kind == "serving":
        signal.signal(signal.SIGTERM, lambda *_: finish(control))
    if kind == "parenting" and os.fork() == 0:
        outlive(os.getppid())
    if kind != "starting":
        say(control, ready=os.getpid())
    while os.getppid() == parent:
        time.sleep(0.1)
        say(control)


def outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.01)
    os._exit(0)


def finish(control: socket.socket) -> None:
    for _ in range(LAST_WORDS):
        say(control)
    os._exit(0)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "supervisor":
        sys.exit(supervise(*given))
    live(what, int(given[0]), socket.socket(fileno=int(given[1])))

"""What the processes under a supervisor have in common."""

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from loss_scoring.service.processes.channel import Channel

_BEAT_S = 0.5
_PR_SET_PDEATHSIG = 1


def become_child(parent: int, control: int) -> socket.socket:
    """Bind this process to its supervisor and return the socket that leads there.

    Args:
        parent: The supervisor's id. When it ends, by whatever, so does this process.
        control: The inherited descriptor of the socket.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
    return socket.socket(fileno=control)


async def beat(
    supervisor: Channel,
    sound: Callable[[], bool] = lambda: True,
    news: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Tell the supervisor that the event loop turns, until something else is no longer sound.

    Args:
        supervisor: Leads to it.
        sound: Whether to go on.
        news: Returns what to say besides.
    """
    while sound():
        await asyncio.sleep(_BEAT_S)
        supervisor.send(news())

"""What the processes under a supervisor have in common."""

import ctypes
import os
import resource
import signal
import socket

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
    # Shared memory costs descriptors, and so do connections.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return socket.socket(fileno=control)

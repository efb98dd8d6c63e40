"""Lets SIGTERM end PID 1 of a container while it imports; imported before all that takes seconds.

The kernel drops signals to PID 1 for which it has no handler, so an early SIGTERM would be lost,
and the container killed at the end of its grace period. Any other process ends by itself.
"""

import os
import signal

STOPS = signal.SIGTERM, signal.SIGINT
"""Either means to drain and end."""
_ENDED = 128 + signal.SIGTERM
"""As a shell puts it."""

if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_ENDED))

"""``loss-scoring serve`` whose worker or front ends are a script: supervised.py PART SCRIPT.

As ``service.processes.supervisor``, it imports nothing large. CHAOS_GIVE_UP: after how many failed starts in
how many seconds it does.
"""

import os
import sys

from loss_scoring.service.processes.endings import FailedStarts
from loss_scoring.service.processes.supervisor import Supervisor
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure

if __name__ == "__main__":
    part, script = sys.argv[1:3]
    command = {part: (sys.executable, script)}
    settings = Settings.from_environment()
    configure(settings, "supervisor")
    most, seconds = os.environ.get("CHAOS_GIVE_UP", "5 90").split()
    starts = FailedStarts(int(most), float(seconds))
    sys.exit(Supervisor(settings, starts=starts, **command).run())

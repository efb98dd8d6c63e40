"""``loss-scoring serve`` whose worker or front ends are a script: supervised.py PART SCRIPT.

As ``service.supervisor``, it imports nothing large.
"""

import sys

from service.settings import Settings
from service.supervisor import Supervisor
from service.telemetry.logs import configure

if __name__ == "__main__":
    part, script = sys.argv[1:3]
    command = {part: (sys.executable, script)}
    settings = Settings.from_environment()
    configure(settings, "supervisor")
    sys.exit(Supervisor(settings, **command).run())

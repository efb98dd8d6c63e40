"""``loss-scoring serve`` whose worker or front ends are a script: supervised.py PART SCRIPT.

As ``service.supervisor``, it imports nothing large.
"""

import sys

from service.settings import Settings
from service.supervisor import Supervisor

if __name__ == "__main__":
    part, script = sys.argv[1:3]
    command = {part: (sys.executable, script)}
    sys.exit(Supervisor(Settings.from_environment(), **command).run())

"""``python -m loss_scoring.service.processes``: what ``serve`` becomes if it has front ends."""

import sys

from loss_scoring.service.api.auth import Keys
from loss_scoring.service.processes.supervisor import Supervisor
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure

_WRONG_SETTING = 2


def main() -> None:
    """Supervise the service that the environment describes."""
    settings = Settings.from_environment()
    configure(settings, "supervisor")
    try:
        Keys.of(settings)  # which each front end would refuse, too
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_WRONG_SETTING)
    sys.exit(Supervisor(settings).run())


if __name__ == "__main__":
    main()

"""``python -m service.supervisor``: what ``loss-scoring serve`` becomes if it has front ends."""

import sys

from service.http.keys import Keys
from service.settings import Settings
from service.supervisor.supervisor import Supervisor
from service.telemetry.logs import configure

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

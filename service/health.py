"""The health check of the container, which has no curl: ``python -m loss_scoring.service.health``.

It connects to where the environment says that the service listens; it does not see flags.
"""

import contextlib
import http.client
import os
import sys

from loss_scoring.service.environment import is_link

_TIMEOUT_S = 3
_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104 - not to listen on
_UNAUTHORIZED = 401  # probes need a key: the service answers, and more cannot be known without one


def main() -> int:
    """Ask ``/readyz`` of the service in this container; returns 0 if it takes requests, else 1."""
    host = os.environ.get("LOSS_SCORING_HOST", "127.0.0.1")
    host = "127.0.0.1" if host in _ALL_ADDRESSES else host
    port = os.environ.get("LOSS_SCORING_PORT", "8000")
    port = "8000" if is_link("LOSS_SCORING_PORT", port) else port
    try:
        with contextlib.closing(
            http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        ) as connection:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer of {host}, port {port}: {error}\n")
        return 1
    sys.stdout.write(body + "\n")
    return 0 if answer.status in {http.client.OK, _UNAUTHORIZED} else 1


if __name__ == "__main__":
    sys.exit(main())

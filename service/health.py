"""The health check of the container, which has no curl: ``python -m service.health``."""

import http.client
import os
import sys

_TIMEOUT_S = 3
_UNAUTHORIZED = 401  # the probes need a key: it answers, and who has no key cannot know more


def main() -> int:
    """Ask ``/readyz`` of the service in this container; returns 0 if it takes requests, else 1."""
    port = int(os.environ.get("LOSS_SCORING_PORT", "8000"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer on port {port}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(said + "\n")
    return 0 if answer.status in {http.client.OK, _UNAUTHORIZED} else 1


if __name__ == "__main__":
    sys.exit(main())

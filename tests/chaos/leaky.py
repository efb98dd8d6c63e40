"""``loss-scoring`` with a planted leak of memory and descriptors; the soak must find it.

``leaky.py serve`` is the service in one process, ``leaky.py PARENT CONTROL LISTENING`` a front end.
"""

import os
import sys
from typing import Any

from loss_scoring.service.api import score
from loss_scoring.service.cli import main
from loss_scoring.service.processes import frontend

_kept: list[object] = []
_negotiate = score.negotiate


def leak(*headers: Any) -> Any:
    _kept.append(bytearray(b"x") * 16384)
    if len(_kept) % 50 == 0:
        _kept.append(os.open(os.devnull, os.O_RDONLY))
    return _negotiate(*headers)


if __name__ == "__main__":
    score.negotiate = leak  # type: ignore[assignment]
    if sys.argv[1] == "serve":
        main()
    else:
        frontend.main()

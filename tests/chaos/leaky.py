"""``loss-scoring`` with a planted leak of memory and descriptors; the soak must find it."""

import os
from typing import Any

from service.cli import main
from service.http import score

_kept: list[object] = []
_negotiate = score.negotiate


def leak(headers: Any) -> Any:
    _kept.append(bytearray(b"x") * 16384)
    if len(_kept) % 50 == 0:
        _kept.append(os.open(os.devnull, os.O_RDONLY))
    return _negotiate(headers)


if __name__ == "__main__":
    score.negotiate = leak  # type: ignore[assignment]
    main()

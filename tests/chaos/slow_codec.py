"""``loss-scoring`` that takes CHAOS_READ_S seconds to read a body of a mebibyte, or more.

``slow_codec.py serve`` is the service in one process, ``slow_codec.py PARENT CONTROL LISTENING`` a
front end.
"""

import os
import sys
import time
from typing import Any

from loss_scoring.service.cli import main
from loss_scoring.service.codecs.codec import Codec
from loss_scoring.service.processes import frontend

_LARGE = 1 << 20
_read = Codec.decode


def read_slowly(self: Codec, body: memoryview, *others: Any) -> Any:
    if len(body) >= _LARGE:
        time.sleep(float(os.environ["CHAOS_READ_S"]))
    return _read(self, body, *others)


if __name__ == "__main__":
    Codec.decode = read_slowly  # type: ignore[method-assign]
    if sys.argv[1] == "serve":
        main()
    else:
        frontend.main()

"""Content-Encoding of a request: gzip and zstd, in as many members or frames as there are.

The output is bounded as an uncompressed body is. It goes into one buffer of the largest size
allowed, of which only what is written costs memory; so there is no growing, and no size in the
stream is believed.
"""

import numpy as np
import pyarrow as pa

from service.errors import TooLargeError, UnreadableError


class Decompression:
    """One body on its way out of its coding, as far as it was asked to go.

    Args:
        body: The compressed bytes.
        coding: ``gzip`` or ``zstd``.
        limit: The most bytes that may come out.
    """

    def __init__(self, body: memoryview, coding: str, limit: int) -> None:
        self._coding, self._limit = coding, limit
        self._stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(body)), coding)
        self._buffer = memoryview(np.empty(limit, np.uint8))  # type: ignore[arg-type]
        self._filled = 0

    @property
    def output(self) -> memoryview:
        """What came out so far."""
        return self._buffer[: self._filled]

    def advance(self, size: int) -> bool:
        """Decompress, without the GIL, up to ``size`` bytes in all; tell whether that was all.

        Raises:
            TooLargeError: If more than the limit comes out.
            UnreadableError: If the body is damaged, cut short, or followed by something else.
        """
        end = min(size, self._limit)
        while self._filled < end:
            count = self._read_into(self._buffer[self._filled : end])
            if not count:
                return True
            self._filled += count
        if end < self._limit:
            return False
        if self._read_into(memoryview(bytearray(1))):
            raise TooLargeError(
                f"the decompressed body is over the {self._limit} bytes that this server takes"
            )
        return True

    def _read_into(self, buffer: memoryview) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except (OSError, pa.ArrowException) as error:
            raise UnreadableError(f"the body is not whole {self._coding}: {error}") from error

"""Content codings: gzip and zstd of requests, and zstd of answers.

A request may have as many members or frames as it likes. Its output is bounded as an uncompressed
body is, and goes into one buffer of the largest size allowed, of which only what is written costs
memory; so there is no growing, and no size in the stream is believed.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from loss_scoring.service.codecs.request import Memory
from loss_scoring.service.errors import (
    OverloadedError,
    OverShareError,
    TooLargeError,
    UnreadableError,
)

_FIRST_STEP = 1 << 16
_WRITE_BYTES = 1 << 19
"""Compressed between two questions whether it is still wanted, in a millisecond or two."""


def decompress(
    body: memoryview, coding: str, limit: int, reserve: Callable[[int], None]
) -> memoryview:
    """Return a body without its content coding.

    Its memory is reserved in steps, each as large as all before it: few bytes may become many.

    Args:
        body: The compressed bytes.
        coding: ``gzip`` or ``zstd``.
        limit: The most bytes that may come out.
        reserve: Called with a number of bytes before they are written; may raise.

    Raises:
        TooLargeError: If more than the limit comes out.
        UnreadableError: If the body is damaged, cut short, or followed by something else.
    """
    stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(body)), coding)
    buffer = memoryview(np.empty(limit, np.uint8))  # type: ignore[arg-type]
    filled = end = 0

    def read_into(space: memoryview) -> int:
        try:
            return int(stream.readinto(space))  # without the GIL
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise UnreadableError(f"the body is not whole {coding}: {error}") from error

    while end < limit:
        step = min(max(end, _FIRST_STEP), limit - end)
        reserve(step)
        end += step
        while filled < end:
            count = read_into(buffer[filled:end])
            if not count:
                return buffer[:filled]
            filled += count
    if read_into(memoryview(bytearray(1))):
        raise TooLargeError(
            f"the decompressed body is over the {limit} bytes that this server takes"
        )
    return buffer


def compress(parts: Sequence[memoryview], memory: Memory, held: int) -> list[memoryview] | None:
    """Return an answer as one zstd frame; None if there is no memory for it.

    Args:
        parts: Of the answer.
        memory: Of its request; asked between pieces whether that has ended.
        held: The bytes that the request was given beside its body.
    """
    try:
        memory.reserve(held + sum(part.nbytes for part in parts))
    except (OverloadedError, OverShareError, TooLargeError):
        return None
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:  # level 1; without the GIL
        for part in parts:
            for start in range(0, part.nbytes, _WRITE_BYTES):
                memory.check()
                stream.write(part[start : start + _WRITE_BYTES])
    return [memoryview(sink.getvalue())]

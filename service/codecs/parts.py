"""Answers in parts, as they go to the socket: large parts are not copied, small ones are joined."""

from collections.abc import Sequence

LARGE = 1 << 16
"""Bytes from which copying a part costs more than sending one more."""


def joined(parts: Sequence[memoryview]) -> list[memoryview]:
    """Return the parts as bytes, with small neighbours joined: each may become a packet."""
    if sum(part.nbytes for part in parts) < LARGE:
        return [memoryview(b"".join(parts))]
    out: list[memoryview] = []
    small: list[memoryview] = []
    for part in parts:
        if part.nbytes < LARGE:
            small.append(part)
            continue
        if small:
            out.append(memoryview(b"".join(small)))
            small = []
        out.append(part.cast("B"))
    if small:
        out.append(memoryview(b"".join(small)))
    return out

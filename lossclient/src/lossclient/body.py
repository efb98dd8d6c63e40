"""A request's body in pieces.

httpx hands a body of bytes to the socket whole, and httpcore copies what is left of it after each
write: quadratic in its size. Pieces keep that small.
"""

from collections.abc import AsyncIterator, Iterator

_PIECE = 1 << 18


def pieces(body: memoryview) -> Iterator[bytes]:
    """Yield a body."""
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE].tobytes()


async def async_pieces(body: memoryview) -> AsyncIterator[bytes]:
    """Yield a body to `httpx.AsyncClient`, which takes no ordinary iterator."""
    for piece in pieces(body):
        yield piece

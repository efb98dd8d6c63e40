"""Where a request ends in what a client sends, so that nothing behind it is parsed too early.

The parser takes all that it is given, and a request costs a hundred times the bytes it is written
in. Here no grammar is repeated: a body of known length ends after so many bytes, and heads and
chunked bodies end with an empty line, as the parser insists (it takes no bare LF). A part that
ends with an empty line amid a body is only a part.
"""

from collections.abc import Iterable

_EMPTY_LINE = b"\r\n\r\n"


class Framing:
    """Cuts what arrives into parts, none of which goes beyond the end of a request."""

    __slots__ = ("_before", "_owed")

    def __init__(self) -> None:
        self._owed = 0
        self._before = b""  # the last bytes of an unfinished part: an empty line may be torn

    def begin_body(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the length of the body from headers that the parser has accepted."""
        for name, value in headers:
            if name == b"content-length":
                self._owed = int(value)

    def end(self, arrived: bytes | bytearray, start: int) -> int:
        """Return where the part that begins at ``start`` ends; the next call begins there."""
        if self._owed:
            end = min(start + self._owed, len(arrived))
            self._owed -= end - start
            return end
        before = self._before
        if before:
            torn = (before + arrived[start : start + 3]).find(_EMPTY_LINE)
            if torn >= 0:
                self._before = b""
                return start + torn + 4 - len(before)
        found = arrived.find(_EMPTY_LINE, start)
        if found >= 0:
            self._before = b""
            return found + 4
        self._before = (before + arrived[max(start, len(arrived) - 3) :])[-3:]
        return len(arrived)

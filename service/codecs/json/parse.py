"""JSON text to Python objects, a bounded piece at a time.

The parser of the standard library can refuse a duplicate key and says where a body stops being
JSON, but it lets no other thread run meanwhile, and its objects take up to 50 times the bytes of
the text. So a compiled loop, which has neither fault, first finds where elements of a list or an
object end, and the parser gets as many of them at once as fit in ``PIECE`` bytes. An element that
is longer by itself is a ``LongValue``: its elements are read in the same way if they are needed.
"""

import json
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np

from loss_scoring.service.codecs.json.loop import end_of_piece
from loss_scoring.service.codecs.mistaken import describe_format
from loss_scoring.service.errors import InvalidError, UnreadableError

PIECE = 1 << 16
"""Bytes that are parsed at once."""
OBJECT_BYTES = 128
"""What the objects of a byte of text take at most, with those of the piece before, still alive."""
_MAX_FIELDS = 1000
"""Of an object that is read in pieces."""
_MAX_DEPTH = 500
"""Lists and objects in one another; the parser takes less than Python's limit of recursion."""
_QUOTE, _COMMA = b'",'
_KEY = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")(?:[ \t\r\n]*+(:)[ \t\r\n]*+)?', re.DOTALL)
_KINDS: dict[bytes, object] = {b"{": {}, b"[": [], b'"': ""}
_BEYOND_ASCII = bytes(range(128, 256))


class LongValue:
    """A list, an object or a string of more than ``PIECE`` bytes, which is still text.

    Attributes:
        kind: An empty value of its type.
    """

    __slots__ = ("_body", "_check", "_start", "_stop", "kind")

    def __init__(self, body: memoryview, start: int, stop: int, check: Callable[[], None]) -> None:
        self._body, self._start, self._stop, self._check = body, start, stop, check
        first = bytes(body[start : start + 1])
        if first in b"-0123456789":
            raise UnreadableError(
                f"the body is not JSON, or has a number of over {PIECE} bytes, at byte {start}"
            )
        if first not in _KINDS:
            head = bytes(body[start : start + PIECE]).rstrip(_BEYOND_ASCII)
            parse(head, start)  # says what it is
            raise UnreadableError(f"the body is not JSON at byte {start}")
        self.kind = _KINDS[first]

    def elements(self) -> Iterator[list[Any]]:
        """Yield the elements of a list, in pieces that are not empty but for an empty list."""
        for start, stop in self._pieces():
            if stop - start > PIECE:
                yield [self._inner(start, stop)]
            else:
                yield parse(b"[%b]" % bytes(self._body[start:stop]), start - 1)

    def fields(self) -> dict[str, Any]:
        """Return the fields of an object.

        Raises:
            InvalidError: If there are too many, or a key appears twice.
        """
        pairs: list[tuple[str, Any]] = []
        for start, stop in self._pieces():
            if stop - start > PIECE:
                key = _KEY.match(self._body[start : start + PIECE])
                if key is None and self._body[start] == _QUOTE:  # no field has such a name
                    head = bytes(self._body[start + 1 : start + 64]).decode("utf-8", "replace")
                    pairs.append((f"{head}... at byte {start}", None))
                    continue
                if key is None or key[2] is None:
                    raise UnreadableError(f"the body is not JSON at byte {start}")
                name = parse(key[1], start)
                pairs.append((name, self._inner(start + key.end(), stop)))
            else:
                pairs += parse(b"{%b}" % bytes(self._body[start:stop]), start - 1).items()
            if len(pairs) > _MAX_FIELDS:
                raise InvalidError(f"an object has over {_MAX_FIELDS} fields, at byte {start}")
        return _unique(pairs)

    def _inner(self, start: int, stop: int) -> Any:
        if stop - start > PIECE:
            return LongValue(self._body, start, stop, self._check)
        return parse(bytes(self._body[start:stop]), start)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield where pieces start and stop, each whole elements or a long one."""
        text = np.frombuffer(self._body, np.uint8)
        start, end = self._start + 1, self._stop - 1
        while True:
            self._check()
            after, first, last = end_of_piece(text, start, PIECE, _MAX_DEPTH)
            if after < 0:
                raise UnreadableError("the body is nested too deeply")
            is_end = after >= end
            if is_end:
                whole = after == end and self._body[end] == b"]}"[self.kind == {}]
            else:
                whole = self._body[after] == _COMMA
            if not whole or (first == last and (start > self._start + 1 or not is_end)):
                raise UnreadableError(f"the body is not JSON at byte {min(after, end)}")
            yield first, last
            if is_end:
                return
            start = after + 1


def read_document(body: bytes | memoryview, check: Callable[[], None]) -> Any:
    """Return what a body says, a ``LongValue`` if it is long.

    Args:
        body: All of it.
        check: Called between pieces; may raise.

    Raises:
        UnreadableError: If it is not JSON in UTF-8. Of a long one, only what is read is checked.
        InvalidError: If a key appears twice in one object.
    """
    if len(body) <= PIECE:
        return parse(bytes(body))
    view = memoryview(body).toreadonly()
    text = np.frombuffer(view, np.uint8)
    after, start, stop = end_of_piece(text, 0, len(text), _MAX_DEPTH)
    if after < 0:
        raise UnreadableError("the body is nested too deeply")
    if after < len(text):
        raise UnreadableError(f"the body is not JSON at byte {after}")
    if stop - start > PIECE:
        return LongValue(view, start, stop, check)
    return parse(bytes(view[start:stop]), start)


def elements_of(value: object) -> Iterable[list[Any]] | None:
    """Return the elements of a list in pieces; None for anything else."""
    if isinstance(value, LongValue):
        return value.elements() if value.kind == [] else None
    return [value] if isinstance(value, list) else None


def fields_of(value: object) -> dict[str, Any] | None:
    """Return the fields of an object; None for anything else."""
    if isinstance(value, LongValue):
        return value.fields() if value.kind == {} else None
    return value if isinstance(value, dict) else None


def parse(text: bytes, start: int = 0) -> Any:
    """Return what JSON text says, all at once.

    Args:
        text: A body or a piece of one.
        start: Where in the body it begins, for messages.

    Raises:
        UnreadableError: If it is not JSON in UTF-8.
        InvalidError: If a key appears twice in one object.
    """
    try:
        return json.loads(
            str(text, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        where = f": {error.reason} at byte {start + error.start}"
        raise UnreadableError(f"the body is not UTF-8{_meant(text) or where}") from error
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        if start:
            at = f"byte {start + len(error.doc[: error.pos].encode())}"
        where = f": {error.msg} at {at}"
        if text.startswith(BOM_UTF8):
            where = "; save it without a byte order mark"
        raise UnreadableError(f"the body is not JSON{_meant(text) or where}") from error
    except RecursionError as error:
        raise UnreadableError("the body is nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(f"the body holds a number that cannot be read: {error}") from error


def _meant(text: bytes) -> str:
    return "" if text.lstrip()[:1] in {b"{", b"["} else describe_format(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidError(f"the key {name!r} appears more than once in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is not JSON; send a missing value as null")

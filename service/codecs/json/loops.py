"""The compiled loop that reads the list of series of a JSON body.

It knows just the JSON of an ordinary request: objects of ``prediction``, ``target`` and ``id``, and
lists of numbers and nulls. At anything else it gives up, which is always right, as another parser
then judges the body.

It stays within memory by three rules. The body is cut after its last ``}``, which no blank, digit
or key holds: so ``body[j]`` may be read wherever what stands before it is not that ``}``, and the
end is looked for wherever a ``}`` or the inside of a string is passed. What is written is counted
against what was set aside. And of an id no more is written than was read.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: PLR1714 - numba would build a set
# ruff: noqa: PLR0911, PLR0912, PLR0915, C901 - calls cost, so one loop

import numpy as np
from numba import uint64

from loss_scoring.service.codecs.json.machine import byte, compiled, inlined
from loss_scoring.service.codecs.json.numbers import UNCERTAIN, read_number
from loss_scoring.service.codecs.request import MAX_ID_BYTES

LONGEST_SKELETON = 4096
"""Bytes that may stand around the series."""
_NULL = uint64(0x7FF8000000000000)
_PREDICTION, _TARGET, _ID = 1, 2, 4
_KEYS = np.frombuffer(b'"prediction""target""id""series"', np.uint8)
_SERIES = (24, 32)


@compiled
def count_commas(body):
    """Count the commas: JSON has at most one more number."""
    count = 0
    for i in range(len(body)):
        count += body[i] == 44
    return count


@inlined
def _skip(body, j):
    """Return where the blanks end."""
    c = byte(body, j)
    while c <= 32 and (c == 32 or c == 10 or c == 13 or c == 9):
        j += 1
        c = byte(body, j)
    return j


@inlined
def _is_key(body, j, start, stop):
    """Whether one of the keys stands at ``j``, which must be that far from the end."""
    same = True
    for k in range(start, stop):
        same &= byte(body, j + k - start) == _KEYS[k]
    return same


@inlined
def _find_series(body, n):
    """Return where the list of series starts; -1 if it is not found near the start."""
    i = depth = 0
    while i < min(n, LONGEST_SKELETON):
        c = byte(body, i)
        i += 1
        if c == 34:
            start = i - 1
            while i < n and body[i] != 34:
                i += 2 if body[i] == 92 else 1
            i += 1
            if depth == 1 and i - start == 8 and i < n and _is_key(body, start, *_SERIES):
                colon = _skip(body, i)
                if byte(body, colon) == 58:
                    bracket = _skip(body, colon + 1)
                    if byte(body, bracket) == 91:
                        return bracket
        elif c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            depth -= 1
    return -1


@compiled
def read_series(body, values, offsets, widths, ids):
    """Read all series.

    Args:
        body: A request.
        values: Receives all predictions, and from its middle on all targets.
        offsets: Receives where series start and end.
        widths: Receives the width of the rows of each series, 0 for plain ones.
        ids: As long as the body; receives the ids as they stand there, a line break and a comma
            after each.

    Returns:
        Where in the body the list of series starts and stops, the number of series, the bytes of
        ids, how many numbers are null, how many must be left to ``float``, and whether there are
        rows. The number of series is 0 to give up.
    """
    failed = 0, 0, 0, 0, 0, 0, False
    n = len(body)
    while n > 0 and (body[n - 1] == 32 or 9 <= body[n - 1] <= 13):
        n -= 1
    if n == 0 or body[n - 1] != 125:
        return failed
    start = _find_series(body, n)
    if start < 0:
        return failed
    bits = values.view(np.uint64)
    most = len(bits) // 2
    series = first = written = nulls = odds = named = 0
    nested = False
    offsets[0] = 0
    j = _skip(body, start + 1)
    while True:
        if series == len(widths) or byte(body, j) != 123:
            return failed
        seen = length = width = 0
        c = 44
        while c == 44:
            j = _skip(body, j + 1)
            if byte(body, j) != 34:
                return failed
            c = byte(body, j + 1)
            if c == 112:
                field, begin, end = _PREDICTION, 0, 12
            elif c == 116:
                field, begin, end = _TARGET, 12, 20
            else:
                field, begin, end = _ID, 20, 24
            if seen & field or j + end - begin >= n or not _is_key(body, j, begin, end):
                return failed
            j = _skip(body, j + end - begin)
            if byte(body, j) != 58:
                return failed
            j = _skip(body, j + 1)
            c = byte(body, j)
            if field == _ID:
                begin = j
                j += 1
                if c == 34:
                    while j < n and body[j] != 34:
                        j += 2 if body[j] == 92 else 1
                    j += 1
                    if j >= n or j - begin > MAX_ID_BYTES + 2:  # escapes only become shorter
                        return failed
                elif 49 <= c <= 57 or c == 45:
                    if c == 45 and not 49 <= byte(body, j) <= 57:
                        return failed
                    number = c - 48 if c != 45 else 0
                    while 48 <= byte(body, j) <= 57:
                        if number > 922337203685477579:  # ten times as much fits in 64 bits
                            return failed
                        number = number * 10 + byte(body, j) - 48
                        j += 1
                elif c != 48:
                    return failed
                for k in range(begin, j):
                    ids[written] = body[k]
                    written += 1
                ids[written] = 10
                ids[written + 1] = 44
                written += 2
            else:
                if c != 91:
                    return failed
                j = _skip(body, j + 1)
                rows = byte(body, j) == 91
                at = begin = (0 if field == _PREDICTION else most) + first
                end = (1 if field == _PREDICTION else 2) * most
                wide = 0
                while True:
                    row = at
                    if rows:
                        if byte(body, j) != 91:
                            return failed
                        j = _skip(body, j + 1)
                    while True:
                        if at == end:
                            return failed
                        c = byte(body, j)
                        if c == 110:
                            if j + 4 >= n or not (
                                body[j + 1] == 117 and body[j + 2] == 108 and body[j + 3] == 108
                            ):
                                return failed
                            j += 4
                            pattern = _NULL
                            nulls += 1
                        else:
                            j, pattern = read_number(body, j)
                            if j < 0:
                                return failed
                            odds += pattern >> uint64(48) == UNCERTAIN >> uint64(48)
                        bits[at] = pattern
                        at += 1
                        j = _skip(body, j)
                        c = byte(body, j)
                        if c != 44:
                            break
                        j = _skip(body, j + 1)
                    if c != 93:
                        return failed
                    j += 1
                    if not rows:
                        break
                    if wide and at - row != wide:
                        return failed
                    wide = at - row
                    j = _skip(body, j)
                    c = byte(body, j)
                    if c == 93:
                        j += 1
                        break
                    if c != 44:
                        return failed
                    j = _skip(body, j + 1)
                if seen & (_PREDICTION | _TARGET) and (at - begin != length or wide != width):
                    return failed
                length, width = at - begin, wide
            seen |= field
            j = _skip(body, j)
            c = byte(body, j)
        j += 1
        if c != 125 or j >= n or seen | _ID != _PREDICTION | _TARGET | _ID:
            return failed
        if series > 0 and seen & _ID != named:
            return failed
        named = seen & _ID
        nested |= width > 0
        first += length
        widths[series] = width
        series += 1
        offsets[series] = first
        j = _skip(body, j)
        c = byte(body, j)
        if c == 93:
            return start, j, series, written, nulls, odds, nested
        if c != 44:
            return failed
        j = _skip(body, j + 1)

"""The compiled loops over a JSON body.

``read_series`` reads the list of series. It knows only the JSON of a common request: objects of
``prediction``, ``target`` and ``id``, and lists of numbers and nulls. At anything else it gives up,
which is always right, as the strict reader then judges the body, with ``end_of_piece``.

It stays within memory by three rules. The body is cut after its last ``}``, which no blank, digit
or key holds: so ``body[j]`` may be read wherever what precedes it is not that ``}``, and the end is
compared wherever a ``}`` or the inside of a string is passed. What is written is counted against
what was set aside. And of an id no more is written than was read.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: SIM109, PLR1714 - numba compares slowly with members of a set or tuple
# ruff: noqa: PLR0911, PLR0912, PLR0913, PLR0915, PLR0917, C901 - a loop has many ways to give up

import numpy as np
from numba import uint64

from loss_scoring.service.codecs.json.numbers import byte, compiled, inlined, read_number
from loss_scoring.service.codecs.request import MAX_ID_BYTES

_QUOTE, _BACKSLASH, COMMA, _COLON = b'"\\,:'
OBJECT, _OBJECT_END, _LIST, _LIST_END = b"{}[]"
_SPACE, _NEWLINE, _RETURN, _TAB = b" \n\r\t"
_MINUS, _ZERO, _ONE, _NINE = b"-019"
_N, _U, _L, _P, _T = b"nulpt"
_NULL = uint64(0x7FF8000000000000)
_LARGEST_TENTH = (2**63 - 1) // 10 - 1
_PREDICTION, _TARGET, _ID = 1, 2, 4
_SIDES = _PREDICTION | _TARGET
_KEYS = np.frombuffer(b'"prediction""target""id"', np.uint8)


@compiled
def count_of(body, character):
    """Count a byte: commas, as JSON has at most one more number, or braces of objects."""
    count = 0
    for i in range(len(body)):
        count += body[i] == character
    return count


@inlined
def _is_blank(c):
    return c <= _SPACE and (c == _SPACE or c == _NEWLINE or c == _RETURN or c == _TAB)


@inlined
def _skip(body, j):
    """Return where the blanks end."""
    c = byte(body, j)
    while _is_blank(c):
        j += 1
        c = byte(body, j)
    return j


@inlined
def _is_key(body, j, start, stop):
    """Whether one of the keys begins at ``j``, which must be that far from the end."""
    is_same = True
    for k in range(start, stop):
        is_same &= byte(body, j + k - start) == _KEYS[k]
    return is_same


@inlined
def _read_key(body, j, n):
    """Return the field whose key begins at ``j``, and where its value does; 0 for no such key."""
    if byte(body, j) != _QUOTE:
        return 0, j
    c = byte(body, j + 1)
    if c == _P:
        field, start, stop = _PREDICTION, 0, 12
    elif c == _T:
        field, start, stop = _TARGET, 12, 20
    else:
        field, start, stop = _ID, 20, 24
    after = j + stop - start
    if after >= n or not _is_key(body, j, start, stop):
        return 0, j
    j = _skip(body, after)
    if byte(body, j) != _COLON:
        return 0, j
    return field, _skip(body, j + 1)


@inlined
def _end_of_id(body, j, n):
    """Return where the id at ``j`` ends; -1 to give up."""
    start = j
    c = byte(body, j)
    if c == _QUOTE:
        j += 1
        while j < n and body[j] != _QUOTE:
            j += 2 if body[j] == _BACKSLASH else 1
        j += 1
        return j if j < n and j - start <= MAX_ID_BYTES + 2 else -1  # escapes only become shorter
    if c == _ZERO:
        return j + 1
    if c == _MINUS:
        j += 1
    if not _ONE <= byte(body, j) <= _NINE:
        return -1
    number = 0
    while _ZERO <= byte(body, j) <= _NINE:
        if number > _LARGEST_TENTH:  # ten times as much and a digit might not fit in 64 bits
            return -1
        number = number * 10 + byte(body, j) - _ZERO
        j += 1
    return j


@inlined
def _read_row(body, j, n, bits, at, end):
    """Read the list of numbers and nulls that begins at ``j``; write them to ``bits[at:end]``.

    Returns:
        Where in the body the list ends, where in ``bits``, and how many are null. The first is -1
        to give up.
    """
    nulls = 0
    c = COMMA
    while c == COMMA:
        j = _skip(body, j + 1)
        if at == end:
            return -1, at, nulls
        if byte(body, j) == _N:
            if j + 4 >= n or body[j + 1] != _U or body[j + 2] != _L or body[j + 3] != _L:
                return -1, at, nulls
            j += 4
            bits[at] = _NULL
            nulls += 1
        else:
            j, bits[at] = read_number(body, j)
            if j < 0:
                return -1, at, nulls
        at += 1
        j = _skip(body, j)
        c = byte(body, j)
    return j + 1 if c == _LIST_END else -1, at, nulls


@inlined
def _read_side(body, j, n, bits, at, end):
    """Read a prediction or a target, a list of numbers or of rows of equal width.

    Returns:
        As ``_read_row``, and before the nulls the width of the rows, 0 if there are none.
    """
    if byte(body, j) != _LIST:
        return -1, at, 0, 0
    if byte(body, _skip(body, j + 1)) != _LIST:
        j, at, nulls = _read_row(body, j, n, bits, at, end)
        return j, at, 0, nulls
    nulls = width = 0
    c = COMMA
    while c == COMMA:
        j = _skip(body, j + 1)
        if byte(body, j) != _LIST:
            return -1, at, width, nulls
        start = at
        j, at, found = _read_row(body, j, n, bits, at, end)
        nulls += found
        if j < 0 or (width and at - start != width):
            return -1, at, width, nulls
        width = at - start
        j = _skip(body, j)
        c = byte(body, j)
    return j + 1 if c == _LIST_END else -1, at, width, nulls


@compiled
def end_of_piece(body, start, size, max_depth):
    """Find elements of a list or object, as many as fit in ``size`` bytes, or one that does not.

    Strings and brackets are matched, and nothing else of the grammar is checked.

    Args:
        body: A request.
        start: Where the elements begin.
        size: The bytes.
        max_depth: How many lists and objects may be in one another.

    Returns:
        Where the comma or the bracket after them is, or the end of the body; -1 if they are nested
        too deeply. Where their text starts and stops, without the blanks around it.
    """
    n = len(body)
    first = start
    while first < n and _is_blank(body[first]):
        first += 1
    comma = -1
    depth = 0
    j = first
    while j < n and (comma < 0 or j - first <= size):
        c = body[j]
        if c == _QUOTE:
            j += 1
            while j < n and body[j] != _QUOTE:
                j += 2 if body[j] == _BACKSLASH else 1
        elif c == OBJECT or c == _LIST:
            depth += 1
            if depth > max_depth:
                return -1, first, first
        elif c == _OBJECT_END or c == _LIST_END:
            if depth == 0:
                break
            depth -= 1
        elif c == COMMA and depth == 0:
            if j - first > size and comma < 0:
                break
            comma = j
        j += 1
    stop = min(j, n)
    if comma >= 0 and j - first > size:
        stop = comma
    last = stop
    while last > first and _is_blank(body[last - 1]):
        last -= 1
    return stop, first, last


@compiled
def read_series(body, start, values, layout, ids):
    """Read all series.

    Args:
        body: A request.
        start: Where its list of series begins.
        values: Receives all predictions, and from its middle on all targets.
        layout: Receives the offsets of the series, and from its middle on the widths of their rows,
            0 for plain ones.
        ids: As long as the body; receives the ids as they are written, a line break and a comma
            after each.

    Returns:
        Where in the body the list of series stops, the number of series, the bytes of ids, how many
        numbers are null, and whether there are rows. The number of series is 0 to give up.
    """
    failed = 0, 0, 0, 0, False
    n = len(body)
    while n > 0 and (body[n - 1] == _SPACE or _TAB <= body[n - 1] <= _RETURN):
        n -= 1
    if n == 0 or body[n - 1] != _OBJECT_END:
        return failed
    bits = values.view(np.uint64)
    middle = len(bits) // 2
    limit = len(layout) // 2
    series = first = written = nulls = has_ids = 0
    has_rows = False
    layout[0] = 0
    j = start
    c = COMMA
    while c == COMMA:
        j = _skip(body, j + 1)
        if series + 1 == limit or byte(body, j) != OBJECT:
            return failed
        seen = length = width = 0
        while c == COMMA:
            field, j = _read_key(body, _skip(body, j + 1), n)
            if field == 0 or seen & field:
                return failed
            if field == _ID:
                begin = j
                j = _end_of_id(body, j, n)
                if j < 0:
                    return failed
                for k in range(begin, j):
                    ids[written] = body[k]
                    written += 1
                ids[written] = _NEWLINE
                ids[written + 1] = COMMA
                written += 2
            else:
                begin = first if field == _PREDICTION else middle + first
                end = middle if field == _PREDICTION else 2 * middle
                j, at, row, found = _read_side(body, j, n, bits, begin, end)
                if j < 0 or (seen & _SIDES and (at - begin != length or row != width)):
                    return failed
                length, width = at - begin, row
                nulls += found
            seen |= field
            j = _skip(body, j)
            c = byte(body, j)
        if c != _OBJECT_END or j + 1 >= n or seen & _SIDES != _SIDES:
            return failed
        if series > 0 and seen & _ID != has_ids:
            return failed
        has_ids = seen & _ID
        has_rows |= width > 0
        first += length
        layout[limit + series] = width
        series += 1
        layout[series] = first
        j = _skip(body, j + 1)
        c = byte(body, j)
    if c != _LIST_END:
        return failed
    return j, series, written, nulls, has_rows

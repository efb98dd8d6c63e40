"""The compiled loops that lift numbers out of a JSON body and deal them to their sides.

Numbers are correctly rounded, as Python's ``float`` rounds them. A mantissa below 2**53 and a power
of ten up to 22 are exact in float64, so one multiplication or division rounds once. Otherwise the
mantissa is multiplied by a 128-bit power of five; Lemire, "Number parsing at a gigabyte per second"
(2021), proves when the upper bits decide the rounding. The rare numbers that it does not decide, or
that have more than 19 digits, are left to ``float``.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: PLR1714 - numba would build a set
# ruff: noqa: PLR0911, PLR0912, PLR0913, PLR0915, PLR0917, C901 - calls cost, so one loop

import warnings
from typing import Any

import numpy as np
from numba import njit, uint64

LOWEST, HIGHEST = -342, 308
"""Powers of ten beyond which a number of 19 digits is 0 or infinite."""
_LONGEST = 64
"""A number of more characters is left to the other parser."""


def _compiled(function):
    options: Any = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:  # no folder for the cache
        warnings.warn(f"numba cannot cache on disk, so each start compiles: {error}", stacklevel=2)
        return njit(**options)(function)


@njit(forceinline=True, nogil=True, error_model="numpy")
def _product(a, b):
    """Return the upper and lower 64 bits of a product."""
    half, mask = uint64(32), uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low, cross, other, high = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (low >> half) + (cross & mask) + (other & mask)
    upper = high + (cross >> half) + (other >> half) + (middle >> half)
    return upper, (low & mask) | (middle << half)


@njit(nogil=True, error_model="numpy")
def _rounded(mantissa, exponent, upper, lower):
    """Return the bits of ``mantissa * 10**exponent`` in float64, and whether they are certain."""
    one = uint64(1)
    if mantissa == 0 or exponent < LOWEST:
        return uint64(0), True
    if exponent > HIGHEST:
        return uint64(0x7FF0000000000000), True
    zeros = 0
    shifted = mantissa
    for width in (32, 16, 8, 4, 2, 1):
        if shifted >> uint64(64 - width) == 0:
            shifted <<= uint64(width)
            zeros += width
    row = exponent - LOWEST
    high, low = _product(shifted, upper[row])
    if high & uint64(0x1FF) == uint64(0x1FF):  # the lower half of the power may carry into it
        carry, _ = _product(shifted, lower[row])
        low += carry
        if low < carry:
            high += one
    if low == uint64(0xFFFFFFFFFFFFFFFF) and (exponent < -27 or exponent > 55):
        return uint64(0), False
    top = high >> uint64(63)
    shift = top + uint64(9)
    fraction = high >> shift  # 54 bits: the 53 of a float64 and one to round by
    binary = ((217706 * exponent) >> 16) + 63 + int(top) - zeros + 1023
    if binary <= 0:  # subnormal
        if binary <= -63:
            return uint64(0), True
        fraction >>= uint64(1 - binary)
        fraction += fraction & one
        fraction >>= one
        return fraction, True  # if it was rounded up to a normal number, the bits are right as well
    # Halfway between two: only these powers can be exact, and then the even one is right.
    tie = low <= one and -4 <= exponent <= 23 and fraction << shift == high
    if tie and fraction & uint64(3) == one:
        fraction -= one
    fraction += fraction & one
    fraction >>= one
    if fraction >= uint64(1 << 53):
        fraction = uint64(1 << 52)
        binary += 1
    if binary >= 0x7FF:
        return uint64(0x7FF0000000000000), True
    return (fraction & uint64((1 << 52) - 1)) | (uint64(binary) << uint64(52)), True


@_compiled
def count_commas(body):
    """Count the commas: JSON has at most one more number, and one more list."""
    count = 0
    for i in range(len(body)):
        count += body[i] == 44
    return count


@_compiled
def lift_lists(body, skeleton, numbers, bits, counts, odd, upper, lower, tens):
    """Return the sizes of skeleton, counts, numbers and odd, and the nulls; -1 to give up.

    The body ends in ``}``, which no number or blank is, so the inner loops need no bound.
    """
    failed = (-1, 0, 0, 0, 0)
    n = len(body)
    i = out = lists = total = odds = nulls = 0
    while i < n:
        c = body[i]
        skeleton[out] = c
        out += 1
        i += 1
        if c == 34:  # a string, to its closing quote
            closed = False
            while i < n and not closed:
                c = body[i]
                if c == 92:
                    return failed
                skeleton[out] = c
                out += 1
                i += 1
                closed = c == 34
            if not closed:
                return failed
        if c != 91 or i == n:
            continue
        j = i
        while body[j] == 32 or body[j] == 10 or body[j] == 13 or body[j] == 9:
            j += 1
        c = body[j]
        if not (48 <= c <= 57 or c == 45 or c == 110):
            continue
        if lists == len(counts):  # not JSON: lists without a comma between them
            return failed
        first = total
        while True:
            if total == len(numbers):
                return failed
            c = body[j]
            start = j
            if c == 110:
                if j + 4 >= n or body[j + 1] != 117 or body[j + 2] != 108 or body[j + 3] != 108:
                    return failed
                j += 4
                numbers[total] = np.nan
                nulls += 1
            else:
                negative = c == 45
                if negative:
                    j += 1
                c = body[j]
                if not 48 <= c <= 57:
                    return failed
                leading = c == 48
                mantissa = uint64(0)
                digits = 0  # significant ones
                begin = j
                while 48 <= c <= 57:
                    mantissa = mantissa * uint64(10) + uint64(c - 48)
                    digits += digits > 0 or c != 48
                    j += 1
                    c = body[j]
                if leading and j - begin > 1:
                    return failed
                exponent = 0
                whole = True
                if c == 46:
                    whole = False
                    j += 1
                    begin = j
                    c = body[j]
                    while 48 <= c <= 57:
                        mantissa = mantissa * uint64(10) + uint64(c - 48)
                        digits += digits > 0 or c != 48
                        j += 1
                        c = body[j]
                    exponent = begin - j
                    if exponent == 0:
                        return failed
                if c == 101 or c == 69:
                    whole = False
                    j += 1
                    c = body[j]
                    down = c == 45
                    if down or c == 43:
                        j += 1
                        c = body[j]
                    begin = j
                    power = 0
                    while 48 <= c <= 57:
                        if power < 100_000:
                            power = power * 10 + int(c - 48)
                        j += 1
                        c = body[j]
                    if j == begin:
                        return failed
                    exponent += -power if down else power
                if j - start > _LONGEST:
                    return failed
                certain = digits <= 19
                if certain:
                    if mantissa <= uint64(1 << 53) and -22 <= exponent <= 22:
                        x = np.float64(mantissa)
                        x = x / tens[-exponent] if exponent < 0 else x * tens[exponent]
                        # The integer -0 is 0, as Python has it; only -0.0 keeps its sign.
                        numbers[total] = -x if negative and not (whole and x == 0) else x
                    else:
                        pattern, certain = _rounded(mantissa, exponent, upper, lower)
                        bits[total] = pattern | (uint64(negative) << uint64(63))
                if not certain:
                    if odds == len(odd):
                        return failed
                    odd[odds, 0] = total
                    odd[odds, 1] = start
                    odd[odds, 2] = j
                    odds += 1
            total += 1
            while body[j] == 32 or body[j] == 10 or body[j] == 13 or body[j] == 9:
                j += 1
            c = body[j]
            j += 1
            if c == 93:
                break
            if c != 44:
                return failed
            while body[j] == 32 or body[j] == 10 or body[j] == 13 or body[j] == 9:
                j += 1
            c = body[j]
            if not (48 <= c <= 57 or c == 45 or c == 110):
                return failed
        counts[lists] = total - first
        lists += 1
        skeleton[out] = 48
        skeleton[out + 1] = 93
        out += 2
        i = j
    return out, lists, total, odds, nulls


@_compiled
def deal_lists(numbers, counts, rows, target_first, prediction, target, offsets, widths, most):
    """Copy the numbers to their sides; False if the sides differ in shape or one overflows."""
    at = out = lists = 0
    offsets[0] = 0
    for s in range(len(widths)):
        width = counts[lists]
        for k in range(lists, lists + rows[s, 0] + rows[s, 1]):
            if counts[k] != width:
                return False
        if rows[s, 0] != rows[s, 1]:
            return False
        lists += 2 * rows[s, 0]
        size = width * rows[s, 0]
        mine, theirs = (at + size, at) if target_first[s] else (at, at + size)
        for k in range(size):
            x = numbers[mine + k]
            y = numbers[theirs + k]
            if abs(x) > most or abs(y) > most:
                return False
            prediction[out + k] = x
            target[out + k] = y
        at += 2 * size
        out += size
        offsets[s + 1] = out
        widths[s] = width
    return True

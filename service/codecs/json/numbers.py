"""JSON numbers to float64, correctly rounded, as Python's ``float`` rounds them.

A mantissa up to 2**53 and a power of ten up to 22 are exact in float64, so one multiplication or
division rounds once. Otherwise the mantissa is multiplied by a 128-bit power of five; Lemire,
"Number parsing at a gigabyte per second" (2021), proves when the upper bits decide the rounding.
The rare numbers that it does not decide, or that have more than 19 digits, are left to ``float``.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202 - numba infers types, and annotations it cannot read would mislead
# ruff: noqa: PLR1714, PLR0911, PLR0912, PLR0915, C901 - numba would build a set; one number, one function

import numpy as np
from numba import uint64

from loss_scoring.service.codecs.json.machine import (
    bits_of,
    byte,
    compiled,
    eight_bytes,
    inlined,
    leading_zeros,
    trailing_zeros,
    upper_product,
)

_LOWEST, _HIGHEST = -342, 308
"""Powers of ten beyond which a number of 19 digits is 0 or infinite."""
_INFINITE = uint64(0x7FF0000000000000)
UNCERTAIN = uint64(0x7FF9000000000000)
"""A NaN that no text stands for; the lower bits are free."""


def _power_of_five(exponent: int) -> int:
    """Return the upper 128 bits of a power of five; of a reciprocal up to 5**27 rounded up."""
    power: int = 5 ** abs(exponent)
    if exponent < 0:
        bits = power.bit_length() + 127 if exponent >= -27 else 2 * power.bit_length() + 128
        power = (1 << bits) // power + 1
    shift = 128 - power.bit_length()
    return power << shift if shift >= 0 else power >> -shift


_LONGEST = 64
"""A number of more characters is left to the other parser."""
_POWERS = [_power_of_five(exponent) for exponent in range(_LOWEST, _HIGHEST + 1)]
_UPPER = np.array([power >> 64 for power in _POWERS], np.uint64)
_LOWER = np.array([power & (2**64 - 1) for power in _POWERS], np.uint64)
_EXACT_TENS = np.array([10.0**exponent for exponent in range(23)])
_TENS = np.array([10**exponent for exponent in range(9)], np.uint64)


@inlined
def _next_digits(body, j):
    """Return how many digits stand at ``j``, at most eight, and their value."""
    if j + 8 <= len(body):
        word = eight_bytes(body, j)
    else:
        word = uint64(0)
        for k in range(len(body) - j):
            word |= uint64(body[j + k]) << uint64(8 * k)
    word ^= uint64(0x3030303030303030)  # digits become 0 to 9
    # The top bit of a byte above 9 is set; a carry can spoil only the bytes after such a one.
    others = ((word + uint64(0x7676767676767676)) | word) & uint64(0x8080808080808080)
    count = trailing_zeros(others) >> 3
    if count == 0:
        return 0, uint64(0)
    word <<= uint64(64 - 8 * count)  # zeros in front, and what follows the digits falls off
    word = word * uint64(10) + (word >> uint64(8))  # pairs, then pairs of pairs, then all
    low = word & uint64(0xFF000000FF)
    high = (word >> uint64(16)) & uint64(0xFF000000FF)
    word = low * uint64(0xF424000000064) + high * uint64(0x271000000001)
    return count, word >> uint64(32)


@inlined
def _rounded(mantissa, exponent):
    """Return the bits of ``mantissa * 10**exponent`` in float64, or UNCERTAIN."""
    one = uint64(1)
    if mantissa == 0 or exponent < _LOWEST:
        return uint64(0)
    if exponent > _HIGHEST:
        return _INFINITE
    zeros = leading_zeros(mantissa)
    shifted = mantissa << uint64(zeros)
    row = exponent - _LOWEST
    high, low = upper_product(shifted, _UPPER[row]), shifted * _UPPER[row]
    if high & uint64(0x1FF) == uint64(0x1FF):  # the lower half of the power may carry into it
        carry = upper_product(shifted, _LOWER[row])
        low += carry
        if low < carry:
            high += one
    if low == uint64(0xFFFFFFFFFFFFFFFF) and (exponent < -27 or exponent > 55):
        return UNCERTAIN
    top = high >> uint64(63)
    shift = top + uint64(9)
    fraction = high >> shift  # 54 bits: the 53 of a float64 and one to round by
    binary = ((217706 * exponent) >> 16) + 63 + int(top) - zeros + 1023
    if binary <= 0:  # subnormal
        if binary <= -63:
            return uint64(0)
        fraction >>= uint64(1 - binary)
        fraction += fraction & one
        return fraction >> one  # if rounded up to a normal number, the bits are right as well
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
        return _INFINITE
    return (fraction & uint64((1 << 52) - 1)) | (uint64(binary) << uint64(52))


@inlined
def read_number(body, j):
    """Return where a number ends, and its bits; -1 if it is not one that can be read here.

    Of a number that must be left to ``float`` the bits say where it starts.
    """
    failed = -1, uint64(0)
    start = j
    negative = byte(body, j) == 45
    j += negative
    begin = j
    count, mantissa = _next_digits(body, j)
    if count == 0 or (count > 1 and byte(body, j) == 48):
        return failed
    j += count
    while count == 8:
        count, more = _next_digits(body, j)
        mantissa = mantissa * _TENS[count] + more
        j += count
    digits = j - begin
    exponent = 0
    c = byte(body, j)
    whole = c != 46
    if not whole:
        j += 1
        point = j
        count = 8
        while count == 8:
            count, more = _next_digits(body, j)
            mantissa = mantissa * _TENS[count] + more
            j += count
        exponent = point - j
        if exponent == 0:
            return failed
        digits -= exponent
        c = byte(body, j)
    if c == 101 or c == 69:
        whole = False
        j += 1
        c = byte(body, j)
        down = c == 45
        if down or c == 43:
            j += 1
            c = byte(body, j)
        if not 48 <= c <= 57:
            return failed
        power = 0
        while 48 <= c <= 57:
            power = min(power * 10 + c - 48, 100_000)
            j += 1
            c = byte(body, j)
        exponent += -power if down else power
    if j - start > _LONGEST:
        return failed
    if digits > 19:  # zeros in front do not count
        c = byte(body, begin)
        while c == 48 or c == 46:
            digits -= c == 48
            begin += 1
            c = byte(body, begin)
    if digits > 19:
        return j, UNCERTAIN | uint64(start)
    if mantissa <= uint64(1 << 53) and -22 <= exponent <= 22:
        x = np.float64(mantissa)
        pattern = bits_of(x / _EXACT_TENS[-exponent] if exponent < 0 else x * _EXACT_TENS[exponent])
    else:
        pattern = _rounded(mantissa, exponent)
        if pattern == _INFINITE:
            return failed
        if pattern == UNCERTAIN:
            return j, UNCERTAIN | uint64(start)
    if negative and not (whole and pattern == 0):  # the integer -0 is 0, as Python has it
        pattern |= uint64(1) << uint64(63)
    return j, pattern


@compiled
def narrow(wide, narrower):
    """Round float64 to float32; False if one becomes infinite."""
    sound = True
    for i in range(len(wide)):
        x = np.float32(wide[i])
        narrower[i] = x
        sound &= not np.isinf(x)
    return sound

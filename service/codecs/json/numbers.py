"""JSON numbers to float64, correctly rounded as Python's ``float`` rounds them, in compiled loops.

A number is a mantissa of up to 19 digits times a power of ten. One product of two words of 64 bits
decides how nearly all of them are rounded. What it does not decide, and what is longer, subnormal
or infinite, is left to the C library's ``strtod``, which would take two to three times as long for
all of them (docs/decisions/0023-numbers-of-json.md).
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, ARG001 - numba decides what a function takes
# ruff: noqa: SIM109, PLR1714 - numba compares slowly with members of a set or tuple
# ruff: noqa: C901 - a number has many forms

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types, uint64

import loss_scoring.core.compiled
from loss_scoring.core.compiled import element_pointer

intrinsic: Any = extending.intrinsic
inlined: Any = loss_scoring.core.compiled.inlined
_SOURCES = [Path(__file__).parent / name for name in ("numbers.py", "loop.py", "../request.py")]
compiled: Any = partial(loss_scoring.core.compiled.compiled, sources=_SOURCES)

_MINUS, _PLUS, _POINT, _ZERO, _NINE, _UPPER_E, _LOWER_E = b"-+.09Ee"
_LONGEST = 64
"""A number of more characters is left to the strict reader."""
_LOWEST, _HIGHEST = -307, 288
"""Powers of ten within which a number of 19 digits is neither subnormal nor infinite."""
_UNDECIDED = uint64(0)
_INFINITE = uint64(0x7FF0000000000000)
_SIGN = uint64(1 << 63)
_ZEROS = uint64(0x3030303030303030)


def _leading_bits(exponent: int) -> int:
    """Return the upper 64 bits of a power of ten."""
    power: int = 10**exponent if exponent >= 0 else (1 << 1200) // 10**-exponent
    return (power << 64) >> power.bit_length()


_POWERS = np.array([_leading_bits(e) for e in range(_LOWEST, _HIGHEST + 1)], np.uint64)
_TENS = np.array([10**count for count in range(9)], np.uint64)

_BIT, _WORD, _PRODUCT = ir.IntType(1), ir.IntType(64), ir.IntType(128)


@intrinsic
def _strtod(_context, body, j):
    """Return the bits of the number that the C library reads at ``j``, and how many bytes it has.

    The decimal point is that of the locale, so in some locales it stops there.
    """
    returned = types.Tuple([types.uint64, types.int64])

    def generate(context, builder, signature, arguments):
        start = element_pointer(context, builder, signature, arguments)
        text = start.type
        kind = ir.FunctionType(ir.DoubleType(), [text, text.as_pointer()])
        strtod = builder.module.globals.get("strtod") or ir.Function(builder.module, kind, "strtod")
        with builder.goto_entry_block():
            end = builder.alloca(text)
        bits = builder.bitcast(builder.call(strtod, [start, end]), _WORD)
        stop, start = (builder.ptrtoint(pointer, _WORD) for pointer in (builder.load(end), start))
        return context.make_tuple(builder, returned, [bits, builder.sub(stop, start)])

    return returned(body, types.int64), generate


@intrinsic
def _leading_zeros(_context, word):
    """Count the zero bits above the highest one of a word."""

    def generate(_context, builder, _signature, words):
        return builder.ctlz(words[0], _BIT(0))

    return types.int64(types.uint64), generate


@intrinsic
def _trailing_zeros(_context, word):
    """Count the zero bits below the lowest one of a word; 64 if there is none."""

    def generate(_context, builder, _signature, words):
        return builder.cttz(words[0], _BIT(0))

    return types.int64(types.uint64), generate


@intrinsic
def _upper_product(_context, a, b):
    """Return the upper 64 bits of a product of two words."""

    def generate(_context, builder, _signature, words):
        product = builder.mul(*(builder.zext(word, _PRODUCT) for word in words))
        return builder.trunc(builder.lshr(product, _PRODUCT(64)), _WORD)

    return types.uint64(types.uint64, types.uint64), generate


@inlined
def byte(body, j):
    """Return a byte, by an unsigned index: a signed one might count from the end."""
    return np.int64(body[uint64(j)])


@inlined
def _eight_bytes(body, j):
    """Return eight bytes, the first one lowest, and 0 for those beyond the end."""
    word = uint64(0)
    if j + 8 <= len(body):
        for k in range(8):  # LLVM makes it one load
            word |= uint64(body[uint64(j + k)]) << uint64(8 * k)
    else:
        for k in range(len(body) - j):
            word |= uint64(body[uint64(j + k)]) << uint64(8 * k)
    return word


@inlined
def _next_digits(body, j):
    """Return how many digits begin at ``j``, at most eight, and their value."""
    word = _eight_bytes(body, j) ^ _ZEROS  # digits become 0 to 9
    # The top bit of a byte above 9 is set; a carry can spoil only the bytes after such a one.
    others = ((word + uint64(0x7676767676767676)) | word) & uint64(0x8080808080808080)
    count = _trailing_zeros(others) >> 3
    if count == 0:
        return 0, uint64(0)
    word <<= uint64(64 - 8 * count)  # zeros in front, and what follows the digits falls off
    word = word * uint64(10) + (word >> uint64(8))  # pairs, then pairs of pairs, then all
    low = word & uint64(0xFF000000FF)
    high = (word >> uint64(16)) & uint64(0xFF000000FF)
    word = low * uint64(0xF424000000064) + high * uint64(0x271000000001)
    return count, word >> uint64(32)


@inlined
def _append_digits(body, j, mantissa):
    """Return where the digits at ``j`` end, and the mantissa with them, modulo 2**64."""
    count, value = _next_digits(body, j)
    while count == 8:
        mantissa = mantissa * _TENS[8] + value
        j += 8  # not count, so that the processor can go on before it knows that
        count, value = _next_digits(body, j)
    return j + count, mantissa * _TENS[count] + value


@inlined
def _read_exponent(body, j):
    """Return where the exponent at ``j`` ends, and its value; -1 if there is none."""
    c = byte(body, j)
    is_negative = c == _MINUS
    if is_negative or c == _PLUS:
        j += 1
        c = byte(body, j)
    if not _ZERO <= c <= _NINE:
        return -1, 0
    power = 0
    while _ZERO <= c <= _NINE:
        power = min(power * 10 + c - _ZERO, 100_000)
        j += 1
        c = byte(body, j)
    return j, -power if is_negative else power


@inlined
def _rounded(mantissa, exponent):
    """Return the bits of ``mantissa * 10**exponent``, or _UNDECIDED."""
    if not _LOWEST <= exponent <= _HIGHEST:
        return _UNDECIDED
    zeros = _leading_zeros(mantissa)
    high = _upper_product(mantissa << uint64(zeros), _POWERS[exponent - _LOWEST])
    top = high >> uint64(63)
    high <<= uint64(1) - top
    # What is cut off the power and the product is less than 2 in all, or less than 4 of this.
    if uint64(1024) - (high & uint64(2047)) < uint64(4):
        return _UNDECIDED
    binary = ((217706 * exponent) >> 16) + 1085 + int(top) - zeros
    # The fraction's highest bit, and a carry when it is rounded up, count in the exponent.
    return (uint64(binary) << uint64(52)) + (((high >> uint64(10)) + uint64(1)) >> uint64(1))


@inlined
def read_number(body, j):
    """Return where the number at ``j`` ends, and its bits; -1 to give up."""
    failed = -1, uint64(0)
    start = j
    is_negative = byte(body, j) == _MINUS
    j += is_negative
    begin = j
    j, mantissa = _append_digits(body, j, uint64(0))
    digits = j - begin
    if digits == 0 or (digits > 1 and byte(body, begin) == _ZERO):
        return failed
    exponent = 0
    c = byte(body, j)
    is_whole = c != _POINT
    if not is_whole:
        point = j + 1
        j, mantissa = _append_digits(body, point, mantissa)
        exponent = point - j
        if exponent == 0:
            return failed
        digits -= exponent
        c = byte(body, j)
    if c == _LOWER_E or c == _UPPER_E:
        is_whole = False
        j, power = _read_exponent(body, j + 1)
        if j < 0:
            return failed
        exponent += power
    if j - start > _LONGEST:
        return failed
    if digits > 19 and byte(body, begin) == _ZERO:  # zeros in front do not count
        digits -= 1 + (_trailing_zeros(_eight_bytes(body, begin + 2) ^ _ZEROS) >> 3)
    is_exact = digits <= 19
    if is_exact and mantissa == 0:
        is_negative &= not is_whole  # the integer -0 is 0, as Python has it
        bits = uint64(0)
    else:
        bits = _rounded(mantissa, exponent) if is_exact else _UNDECIDED
        if bits == _UNDECIDED:
            bits, length = _strtod(body, begin)
            if bits == _INFINITE or length != j - begin:
                return failed
    return j, bits | _SIGN if is_negative else bits

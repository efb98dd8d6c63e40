"""Machine instructions that Python has no words for, to be used in compiled loops.

``compiled`` belongs here too, as it must know of every file whose code ends up in the machine code.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, ARG001 - numba decides what a function of this kind takes

from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import extending, types

import loss_scoring.core.compiled

_WORD = ir.IntType(64)
intrinsic: Any = extending.intrinsic
inlined: Any = loss_scoring.core.compiled.inlined
_SOURCES = [
    Path(__file__).parent / name
    for name in ("machine.py", "numbers.py", "loops.py", "../request.py")
]


def compiled(function):
    """Compile a function, and keep the result on disk until one of the sources changes."""
    return loss_scoring.core.compiled.compiled(function, _SOURCES)


@intrinsic
def byte(context, array, index):
    """Return a byte; the index is not checked, and not counted from the end if negative."""

    def generate(context, builder, signature, arguments):
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.zext(builder.load(builder.gep(start, [arguments[1]])), _WORD)

    return types.int64(array, types.int64), generate


@intrinsic
def eight_bytes(context, array, index):
    """Return eight bytes as they lie in memory, the first one lowest; the index is not checked."""

    def generate(context, builder, signature, arguments):
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(start, [arguments[1]])
        return builder.load(builder.bitcast(place, _WORD.as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def bits_of(context, number):
    """Return the bits of a float64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _WORD)

    return types.uint64(types.float64), generate


@intrinsic
def leading_zeros(context, word):
    """Count the zero bits above the highest one of a word."""

    def generate(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def trailing_zeros(context, word):
    """Count the zero bits below the lowest one of a word; 64 if there is none."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def upper_product(context, a, b):
    """Return the upper 64 bits of a product of two words."""

    def generate(context, builder, signature, arguments):
        a, b = (builder.zext(word, ir.IntType(128)) for word in arguments)
        product = builder.lshr(builder.mul(a, b), ir.Constant(ir.IntType(128), 64))
        return builder.trunc(product, _WORD)

    return types.uint64(types.uint64, types.uint64), generate

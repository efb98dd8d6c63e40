"""What the elements of a loss are made of, here for numbers and numpy's arrays.

The functions of a loss take them from here and run on arrays as they are. A kernel rebinds them
(``bind``) to functions of the same names in its own language, so a formula is written once for
numba, Triton, torch and numpy.
"""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np

absolute: Callable[[Any], Any] = np.abs
exp: Callable[[Any], Any] = np.exp
expm1: Callable[[Any], Any] = np.expm1
log1p: Callable[[Any], Any] = np.log1p


def constant(value: float, x: Any) -> Any:
    """Return a number in the type of ``x``: as it stands, it would widen what it meets in numba."""
    return np.asarray(x).dtype.type(value)


def divide(dividend: Any, divisor: Any) -> Any:
    """Return the correctly rounded quotient; a division by zero is NaN or infinite."""
    with np.errstate(all="ignore"):
        return np.divide(dividend, divisor)


def select(condition: Any, chosen: Any, other: Any) -> Any:
    """Return ``chosen`` where the condition holds, else ``other`` in the type of ``chosen``."""
    return np.where(condition, chosen, np.asarray(other, np.asarray(chosen).dtype))


def signed(x: Any, high: Any, low: Any) -> Any:
    """Return ``x`` with the sign of ``high - low``: 0 where they are equal or one is NaN."""
    return select(high > low, x, select(high < low, -x, 0))


def bind(function: Callable[..., Any], operations: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a copy of a function that finds these operations under the names of this module's.

    So do the functions beside it that it calls.
    """
    assert isinstance(function, FunctionType)  # noqa: S101 - elements are plain functions
    names = {**function.__globals__, **operations}
    for name in function.__code__.co_names:
        called = names.get(name)
        if isinstance(called, FunctionType) and called.__module__ == function.__module__:
            names[name] = bind(called, operations)
    bound = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    bound.__qualname__, bound.__module__ = function.__qualname__, function.__module__
    return bound

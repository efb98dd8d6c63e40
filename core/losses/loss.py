"""What a loss is: a row of text, and the functions of its elements."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Element = Callable[..., Any]
"""A function of numbers, made of the operations of ``elementwise``."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a loss: a flag, or a number between two others.

    Attributes:
        default: A boolean or a float.
        above: What a number must be greater than.
        below: What it must be less than.
    """

    default: bool | float
    above: float = -math.inf
    below: float = math.inf

    @property
    def is_flag(self) -> bool:
        """Whether it is a boolean, for which a kernel compiles code of its own."""
        return isinstance(self.default, bool)

    def check(self, value: object) -> bool | float:
        """Return the value as it is computed with.

        Raises:
            ValueError: If it has the wrong type, or is out of bounds.
        """
        if self.is_flag:
            if not isinstance(value, bool):
                raise ValueError(f"must be {self.bounds}, not {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, not {value!r}")  # noqa: TRY004 - as of any value
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError("must be a finite number")
        if not self.above < value < self.below:
            raise ValueError(f"must be {self.bounds}, not {value!r}")
        return float(value)

    @property
    def bounds(self) -> str:
        """What a value must be, in words."""
        if self.is_flag:
            return "true or false"
        if math.isinf(self.below):
            return "a finite number" if math.isinf(self.above) else f"greater than {self.above:g}"
        return f"greater than {self.above:g} and less than {self.below:g}"


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss: what people read of it, and how its elements are computed.

    The loss of a series is the mean of its terms, unless ``denominator``, ``root`` or ``scaled``
    says otherwise. The functions take prediction ``p`` and target ``y``, then the parameters in
    order, flags first. Their arithmetic is that of the inputs' type, in the order in which it is
    written.

    Attributes:
        name: What requests call it.
        title: Its full name.
        formula: The loss of one series of T elements, y the target and p the prediction.
        gradient: The derivative with respect to one predicted element.
        source: Where the formula is from.
        module: The name of its ``nn.Module`` in ``core.modules``; empty if it has none.
        term: ``term(p, y, ...)``: the loss of an element.
        slope: ``slope(p, y, g, ...)``: the derivative of the term by ``p``, times ``g``.
        parameters: Its parameters, by name.
        has_quotient: Whether an element can be masked, which is where its term is NaN or infinite.
        is_steep: Whether the slope of finite elements may overflow; it is clamped then.
        joined: ``joined(p, y, g, ...)``: the slope as one term, for where it is a difference of two
            and one of them overflows.
        joined_unless: The flag with which the slope is one term anyway.
        target_slope: The derivative of the term by ``y``, times ``g``, if that is not ``-slope``.
        target_joined: The same for ``joined``.
        autograd: Whether torch's own derivatives of the term are these, bit for bit; its module
            leaves them to torch then, which is faster.
        denominator: ``denominator(p, y, ...)``: the loss is the sum of terms over the sum of these.
        root: Whether the loss is the square root of the mean.
        scaled: Whether it is divided by a number that comes with the series.
    """

    name: str
    title: str
    formula: str
    gradient: str
    source: str
    module: str
    term: Element
    slope: Element
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    has_quotient: bool = False
    is_steep: bool = False
    joined: Element | None = None
    joined_unless: str = ""
    target_slope: Element | None = None
    target_joined: Element | None = None
    autograd: bool = False
    denominator: Element | None = None
    root: bool = False
    scaled: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether the loss is the mean of its terms, with nothing else done to it."""
        return self.denominator is None and not self.root and not self.scaled

    @property
    def can_be_masked(self) -> bool:
        """Whether answers count what of a series was masked: elements, or all of it."""
        return self.has_quotient or self.denominator is not None or self.scaled

"""What to compute: the choices that a caller makes among the losses of ``core.losses``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES, Loss

if TYPE_CHECKING:
    from torch import nn

Missing = Literal["error", "skip", "propagate"]
ZeroDivision = Literal["zero", "skip"]


@dataclass(frozen=True, init=False)
class LossSpec:
    """A loss by name, with its parameters.

    Attributes:
        name: A key of ``LOSSES``.
        values: The values of its parameters, in the order of the table.

    Raises:
        ValueError: If no loss has that name, or the loss does not take the parameter or its value.

    Example:
        >>> LossSpec("smape", block_denom_grad=False).parameters
        {'block_denom_grad': False}
    """

    name: str
    values: tuple[bool | float, ...]

    def __init__(self, name: str, **parameters: bool | float) -> None:
        loss = LOSSES.get(name)
        if loss is None:
            raise ValueError(f"unknown loss {name!r}; known are {', '.join(LOSSES)}")
        for parameter in parameters:
            if parameter not in loss.parameters:
                raise ValueError(f"{name} does not take {parameter}")
        values = []
        for parameter, rule in loss.parameters.items():
            try:
                values.append(rule.check(parameters.get(parameter, rule.default)))
            except ValueError as error:
                raise ValueError(f"{parameter} of {name} {error}") from None
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "values", tuple(values))

    @property
    def loss(self) -> Loss:
        """The row of the table."""
        return LOSSES[self.name]

    @property
    def parameters(self) -> dict[str, bool | float]:
        """The values of its parameters, by name."""
        return dict(zip(self.loss.parameters, self.values, strict=True))

    @property
    def flags(self) -> tuple[bool, ...]:
        """The values of the parameters that are flags, which come first."""
        return tuple(value for value in self.values if isinstance(value, bool))

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values of the others."""
        return tuple(self.values[len(self.flags) :])

    def module(self) -> nn.Module:
        """Return the differentiable module of this loss, reduction ``mean``."""
        from loss_scoring.core import modules  # noqa: PLC0415 - torch takes a second to import

        module: nn.Module = getattr(modules, self.loss.module)(**self.parameters)
        return module


_DEFAULT = tuple(LossSpec(name) for name in DEFAULT_LOSSES)


@dataclass(frozen=True)
class ScoreOptions:
    """Everything that decides the answer besides the numbers; requests that agree share a batch.

    Attributes:
        losses: The losses to compute, each name once.
        gradients: Whether to compute the gradient of every loss.
        missing: What a NaN or infinite input element does. ``error``: it is refused.
            ``skip``: it leaves the mean. ``propagate``: darts' semantics (MAE becomes NaN or
            infinite; a quotient counts as masked).
        zero_division: What a masked element does. ``zero``: its term is 0 and counts in T.
            ``skip``: it leaves the mean.

    Raises:
        ValueError: If there is no loss, or one appears twice.
    """

    losses: tuple[LossSpec, ...] = _DEFAULT
    gradients: bool = False
    missing: Missing = "error"
    zero_division: ZeroDivision = "zero"
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses is empty: name at least one")
        counts = Counter(spec.name for spec in self.losses)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(f"losses names {', '.join(repeated)} more than once")

        key = self.losses, self.gradients, self.missing, self.zero_division
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        """Return a hash that is worked out once: each request looks up what its options decide."""
        return self._hash

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Leave out the hash: that of a text is another in each process."""
        return type(self), (self.losses, self.gradients, self.missing, self.zero_division)

"""What to compute: the table of losses, and the choices a caller makes among them.

Request validation, ``GET /losses``, OpenAPI, metrics and the command line read the losses from
``LOSSES``. The kernels name them again: ``CONTRIBUTING.md`` lists all that a new loss takes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from torch import nn

from loss_scoring.core.losses import MAELoss, MapeLoss, SmapeLoss

Missing = Literal["error", "skip", "propagate"]
ZeroDivision = Literal["zero", "skip"]


@dataclass(frozen=True)
class Loss:
    """One row of the table.

    Attributes:
        name: What requests call it.
        title: Its full name.
        formula: The loss of one series of T elements, y the target and p the prediction.
        gradient: The derivative with respect to one predicted element.
        has_quotient: Whether an element can be masked (its quotient NaN or infinite).
        module: The differentiable ``nn.Module`` of the same loss.
        parameters: The defaults of its parameters, by name.
    """

    name: str
    title: str
    formula: str
    gradient: str
    has_quotient: bool
    module: type[nn.Module]
    parameters: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss(
                "mae",
                "mean absolute error",
                "mean(|y - p|)",
                "sign(p - y) / T",
                has_quotient=False,
                module=MAELoss,
            ),
            Loss(
                "mape",
                "mean absolute percentage error",
                "mean(|(y - p) / y|), a term that is NaN or infinite counting as 0",
                "sign(p - y) / |y| / T, 0 where masked",
                has_quotient=True,
                module=MapeLoss,
            ),
            Loss(
                "smape",
                "symmetric mean absolute percentage error",
                "mean(|y - p| / (|y| + |p|)), a term that is NaN or infinite counting as 0",
                "sign(p - y) / d / T with d = |y| + |p|, 0 where masked; with "
                "block_denom_grad=false (sign(p - y) / d - |y - p| * sign(p) / d^2) / T",
                has_quotient=True,
                module=SmapeLoss,
                parameters=MappingProxyType({"block_denom_grad": True}),
            ),
        )
    }
)


@dataclass(frozen=True)
class LossSpec:
    """A loss by name, with its parameters.

    Attributes:
        name: A key of ``LOSSES``.
        block_denom_grad: sMAPE's parameter; only gradients depend on it.

    Raises:
        ValueError: If no loss has that name, or the loss does not take the parameter.

    Example:
        >>> LossSpec("smape", block_denom_grad=False).name
        'smape'
    """

    name: str
    block_denom_grad: bool = True

    def __post_init__(self) -> None:
        loss = LOSSES.get(self.name)
        if loss is None:
            raise ValueError(f"unknown loss {self.name!r}; known are {', '.join(LOSSES)}")
        if not self.block_denom_grad and "block_denom_grad" not in loss.parameters:
            raise ValueError(f"{self.name} does not take block_denom_grad")

    def module(self) -> nn.Module:
        """Return the differentiable module of this loss, reduction ``mean``."""
        takes = LOSSES[self.name].parameters
        return LOSSES[self.name].module(**{name: getattr(self, name) for name in takes})


ALL_LOSSES = tuple(LossSpec(name) for name in LOSSES)


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

    losses: tuple[LossSpec, ...] = ALL_LOSSES
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

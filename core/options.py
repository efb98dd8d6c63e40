"""What to compute: the choices that a caller makes among the losses of ``core.losses``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

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

    def __init__(self, name: str, /, **parameters: bool | float) -> None:
        loss = LOSSES.get(name)
        if loss is None:
            close = get_close_matches(str(name)[:64].casefold(), LOSSES, 1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"unknown loss {name!r}{meant}; known are {', '.join(LOSSES)}")
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

    @classmethod
    def of(cls, loss: LossLike) -> LossSpec:
        """Return a loss as callers write it.

        Args:
            loss: A ``LossSpec``, a mapping of ``name`` and parameters, or text; see ``parse_loss``.

        Raises:
            ValueError: As ``LossSpec`` and ``parse_loss`` do.

        Example:
            >>> LossSpec.of("huber:delta=1.5") == LossSpec.of({"name": "huber", "delta": 1.5})
            True
        """
        if isinstance(loss, LossSpec):
            return loss
        given: dict[str, Any] = parse_loss(loss) if isinstance(loss, str) else dict(loss)
        if "name" not in given:
            raise ValueError(f"{loss!r} has no name")
        return cls(given.pop("name"), **given)

    @classmethod
    def all_of(cls, losses: Iterable[LossLike]) -> tuple[LossSpec, ...]:
        """Return losses as callers write them, each as ``of`` does.

        Raises:
            ValueError: If it is a single one, of which the letters would be taken for names.

        Example:
            >>> LossSpec.all_of(["mae", "smape"])[1].name
            'smape'
        """
        if isinstance(losses, str | Mapping | LossSpec):
            raise ValueError(  # noqa: TRY004 - as all that is wrong with losses
                f"losses must be a list, as [{losses!r}], not {losses!r}"
            )
        return tuple(map(cls.of, losses))

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
        """Return the differentiable module of this loss, reduction ``mean``.

        Raises:
            ValueError: If it has none, as a loss that is divided by a scale of each series.
        """
        from loss_scoring.core.modules import module_of  # noqa: PLC0415 - torch takes a second to import

        return module_of(self.loss)(**self.parameters)


LossLike = LossSpec | Mapping[str, bool | float | str] | str
"""A loss as callers write it; see ``LossSpec.of``."""


def parse_loss(text: str) -> dict[str, Any]:
    """Return name and parameters of a loss in text, ``name`` or ``name:parameter=value:...``.

    This is how queries, command lines and clients write it. Values are not checked.

    Raises:
        ValueError: If a parameter has no value, or appears twice.

    Example:
        >>> parse_loss("huber:delta=1.5")
        {'name': 'huber', 'delta': 1.5}
    """
    name, *parameters = text.split(":")
    found: dict[str, Any] = {"name": name}
    for assignment in parameters:
        parameter, equals, value = assignment.partition("=")
        if not (parameter and equals):
            raise ValueError(f"{text!r} must be like name:parameter=value")
        if parameter in found:
            raise ValueError(f"{parameter} of {name} appears more than once")
        found[parameter] = _value(value)
    return found


def _value(text: str) -> bool | float | str:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


_DEFAULT = tuple(LossSpec(name) for name in DEFAULT_LOSSES)


def usual_losses() -> tuple[list[tuple[LossSpec, ...]], list[tuple[LossSpec, ...]]]:
    """Return what images compile: the default losses, with either value of flags; and each loss."""
    flagged = [
        LossSpec(name, **{flag: not rule.default})
        for name, loss in LOSSES.items()
        for flag, rule in loss.parameters.items()
        if rule.is_flag
    ]
    swapped = [
        tuple(other if other.name == spec.name else spec for spec in _DEFAULT) for other in flagged
    ]
    return [_DEFAULT, *swapped], [(spec,) for spec in (*map(LossSpec, LOSSES), *flagged)]


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
        scaled: The losses that take a scale for each series.

    Raises:
        ValueError: If there is no loss, or one appears twice.
    """

    losses: tuple[LossSpec, ...] = _DEFAULT
    gradients: bool = False
    missing: Missing = "error"
    zero_division: ZeroDivision = "zero"
    scaled: tuple[str, ...] = field(init=False, repr=False, compare=False)
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
        scaled = tuple(spec.name for spec in self.losses if spec.loss.scaled)
        object.__setattr__(self, "scaled", scaled)

    def masked(self, *, weighted: bool) -> tuple[str, ...]:
        """Return the losses of which masked elements are counted: with weights it is each."""
        return tuple(spec.name for spec in self.losses if weighted or spec.loss.can_be_masked)

    def __hash__(self) -> int:
        """Return a hash that is worked out once: each request looks up what its options decide."""
        return self._hash

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Leave out the hash: that of a text is another in each process."""
        return type(self), (self.losses, self.gradients, self.missing, self.zero_division)

"""What to compute: the arguments that every way of scoring shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lossclient.arguments import FLAG, is_flag, is_list_of_losses, require

Missing = Literal["error", "skip", "propagate"]
ZeroDivision = Literal["zero", "skip"]
Loss = str | Mapping[str, Any]
"""A name, ``name:parameter=value``, or a mapping of ``name`` and parameters."""

DEFAULT_COUNT = 3
"""How many losses a request gets that names none, whichever the service has."""
SQUARED: Mapping[str, bool] = {"mase": False, "rmsse": True}
"""The losses that are divided by a scale, and whether it is the root of a mean of squares."""


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute.

    Names, parameters and choices are not checked against a list: the service knows what it has.

    Attributes:
        losses: The losses, such as ``"mae"``, ``"huber:delta=1.5"`` or
            ``{"name": "huber", "delta": 1.5}``. None: those of the service, mae, mape and smape.
        gradients: Whether to return the gradient of each loss by each predicted element.
        missing: What a null, NaN or infinite element does. ``error``: it is refused. ``skip``: it
            leaves the mean. ``propagate``: it is computed with, as darts does.
        zero_division: What an element without a finite quotient does. ``zero``: its term is 0 and
            counts in the mean. ``skip``: it leaves the mean.
        block_denom_grad: Whether the gradient of smape takes its denominator for a constant.

    Raises:
        InvalidInput: If one is of a wrong type.
    """

    losses: Sequence[Loss] | None = None
    gradients: bool = False
    missing: Missing = "error"
    zero_division: ZeroDivision = "zero"
    block_denom_grad: bool = True

    def __post_init__(self) -> None:
        is_valid = self.losses is None or is_list_of_losses(self.losses)
        wanted = "a list of names, or of mappings of a name and parameters, or None"
        require(is_valid, "losses", wanted, self.losses)
        missing, division = self.missing, self.zero_division
        require(isinstance(missing, str), "missing", "error, skip or propagate", missing)
        require(isinstance(division, str), "zero_division", "zero or skip", division)
        for name in ("gradients", "block_denom_grad"):
            value = getattr(self, name)
            require(is_flag(value), name, FLAG, value)

    @property
    def loss_count(self) -> int:
        """How many losses the answer has."""
        return DEFAULT_COUNT if self.losses is None else len(self.losses)

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """The columns of the losses in an answer; None where the service chooses them."""
        if self.losses is None:
            return None
        return tuple(_spelled(loss).partition(":")[0] for loss in self.losses)

    def query(self) -> Mapping[str, str]:
        """Return the options as query parameters.

        Example:
            >>> query = ScoreOptions(["mae", {"name": "huber", "delta": 2}], missing="skip").query()
            >>> query["losses"], query["missing"]
            ('mae,huber:delta=2.0', 'skip')
        """
        query = {
            "gradients": "true" if self.gradients else "false",
            "missing": self.missing,
            "zero_division": self.zero_division,
        }
        if self.losses is not None:
            query["losses"] = ",".join(map(_spelled, self.losses))
        if not self.block_denom_grad:  # losses without the parameter refuse it
            query["block_denom_grad"] = "false"
        return query


def _spelled(loss: Loss) -> str:
    """Return a loss as a query has it."""
    if isinstance(loss, str):
        return loss
    parameters = (
        f"{name}={str(bool(value)).lower() if is_flag(value) else float(value)}"
        for name, value in loss.items()
        if name != "name"
    )
    return ":".join((loss["name"], *parameters))

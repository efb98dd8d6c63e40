"""What to compute: the arguments that every way of scoring shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lossclient.arguments import FLAG, is_flag, is_list_of_names, require

Missing = Literal["error", "skip", "propagate"]
ZeroDivision = Literal["zero", "skip"]

ALL_LOSSES = ("mae", "mape", "smape")


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute.

    Names and choices are not checked against a list: the service knows which ones it has.

    Attributes:
        losses: Names of losses.
        gradients: Whether to return the gradient of each loss by each predicted element.
        missing: What a null, NaN or infinite element does. ``error``: it is refused. ``skip``: it
            leaves the mean. ``propagate``: it is computed with, as darts does.
        zero_division: What an element without a finite quotient does. ``zero``: its term is 0 and
            counts in the mean. ``skip``: it leaves the mean.
        block_denom_grad: Whether the gradient of smape takes its denominator for a constant.

    Raises:
        InvalidInput: If one is of a wrong type.
    """

    losses: Sequence[str] = ALL_LOSSES
    gradients: bool = False
    missing: Missing = "error"
    zero_division: ZeroDivision = "zero"
    block_denom_grad: bool = True

    def __post_init__(self) -> None:
        require(is_list_of_names(self.losses), "losses", "a list of names", self.losses)
        missing, division = self.missing, self.zero_division
        require(isinstance(missing, str), "missing", "error, skip or propagate", missing)
        require(isinstance(division, str), "zero_division", "zero or skip", division)
        for name in ("gradients", "block_denom_grad"):
            value = getattr(self, name)
            require(is_flag(value), name, FLAG, value)

    def query(self) -> Mapping[str, str]:
        """Return the options as query parameters.

        Example:
            >>> ScoreOptions(losses=["mae"], missing="skip").query()
            {'losses': 'mae', 'gradients': 'false', 'missing': 'skip', 'zero_division': 'zero'}
        """
        query = {
            "losses": ",".join(self.losses),
            "gradients": "true" if self.gradients else "false",
            "missing": self.missing,
            "zero_division": self.zero_division,
        }
        if not self.block_denom_grad:  # losses without the parameter refuse it
            query["block_denom_grad"] = "false"
        return query

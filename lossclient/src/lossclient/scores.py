"""Scores in numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lossclient.forecasts import Floats


@dataclass(frozen=True, eq=False)
class Scores:
    """The losses of many series, in the order in which they were given.

    Attributes:
        ids: Of the series: those given, or their positions.
        lengths: How many elements each has, int64.
        losses: For each loss one float64 a series; NaN where no element is left, or where
            ``missing="propagate"`` made it so.
        masked: For each loss with a quotient, how many elements of each series have none that is
            finite.
        gradients: For each loss, if they were asked for: its derivative by each predicted element,
            all series one after the other, in the float type of the predictions; of integers, in
            the type that the loss is computed in.
    """

    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    losses: Mapping[str, npt.NDArray[np.float64]]
    masked: Mapping[str, npt.NDArray[np.int64]]
    gradients: Mapping[str, Floats]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each series starts and ends in a gradient."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def split(self, loss: str) -> list[Floats]:
        """Return the gradient of a loss as one view a series.

        Example:
            >>> flat = {"mae": np.array([0.5, -0.5, 1.0])}
            >>> scores = Scores(np.arange(2), np.array([2, 1]), {}, {}, flat)
            >>> scores.split("mae")
            [array([ 0.5, -0.5]), array([1.])]
        """
        return np.split(self.gradients[loss], self.offsets[1:-1]) if len(self.lengths) else []


def scores_of(answer: pa.Table, ids: npt.NDArray[Any]) -> Scores:
    """Return the answer of the service as arrays."""
    losses, masked, gradients = {}, {}, {}
    for name in answer.column_names[1:]:
        column = answer.column(name)
        if name.endswith("_masked"):
            masked[name.removesuffix("_masked")] = column.to_numpy()
        elif name.endswith("_gradient"):
            gradients[name.removesuffix("_gradient")] = pc.list_flatten(column).to_numpy()
        else:
            losses[name] = column.to_numpy()
    return Scores(ids, answer.column("length").to_numpy(), losses, masked, gradients)

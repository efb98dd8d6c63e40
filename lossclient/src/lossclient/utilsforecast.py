"""The service's losses with the signature of ``utilsforecast.losses``.

They drop into ``utilsforecast.evaluation.evaluate``, which knows a metric by its name and its
arguments. The library itself is not needed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import narwhals as nw

from lossclient.arguments import NAMES, are_names, require
from lossclient.client import Client
from lossclient.columns import Columns
from lossclient.frames import FrameT, open_frame

_ZERO_IS_0 = "smape"
"""The library takes 0 / 0 for 0 in its smape alone; elsewhere such an element leaves the mean."""


@dataclass(frozen=True)
class Losses:
    """The losses of a service, as utilsforecast defines them: an attribute a loss, by its name.

    The numbers are utilsforecast's for pandas, to rounding (it works in float32 if the columns
    are): a missing element leaves the mean, for mape an element whose target is 0 does too, and
    for smape one where target and prediction are 0 counts as 0. They differ in two cases: an
    element that is infinite, or whose quotient overflows, leaves the mean too; and for polars
    utilsforecast gives NaN for a whole series where one element is NaN or, in mape, one target is
    0, where this gives what it gives for pandas.

    Attributes:
        client: Sends the requests. It stays open.

    Example:
        >>> import pandas as pd
        >>> df = pd.DataFrame({
        ...     "unique_id": ["a", "a"], "ds": [1, 2], "y": [100.0, 120.0],
        ...     "Naive": [102.0, 118.5], "Theta": [100.0, 121.0],
        ... })
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     Losses(client).mae(df, models=["Naive", "Theta"])
          unique_id  Naive  Theta
        0         a   1.75    0.5
    """

    client: Client

    def __getattr__(self, name: str) -> "Metric":
        """Return a loss with its parameters' defaults; the service refuses a name it lacks."""
        if name.startswith("_"):
            raise AttributeError(name)
        return Metric(self.client, name)

    def of(self, loss: str, **parameters: bool | float) -> "Metric":
        """Return a loss with parameters, such as ``of("pinball", q=0.9)``."""
        return Metric(self.client, loss, parameters)


@dataclass(frozen=True)
class Metric:
    """A loss as a function of a frame, which ``utilsforecast.evaluation.evaluate`` takes.

    Attributes:
        client: Sends the requests. It stays open.
        loss: Its name.
        parameters: Those that differ from the defaults of the service.
    """

    client: Client
    loss: str
    parameters: Mapping[str, bool | float] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        return self.loss

    def __call__(
        self,
        df: FrameT,
        models: Sequence[str],
        id_col: str = "unique_id",
        target_col: str = "y",
        cutoff_col: str = "cutoff",
    ) -> FrameT:
        """Return the loss: a row for each id and cutoff, a column a model.

        Args:
            df: A pandas, polars or pyarrow frame.
            models: Columns of predictions.
            id_col: Names a series.
            target_col: The actual values.
            cutoff_col: Names a series together with the id, where the frame has such a column.

        Raises:
            LossClientError: See `lossclient.exceptions`.
        """
        require(are_names(models), "models", NAMES, models)
        columns = Columns(id_col, None, target_col, cutoff_col)
        frame = open_frame(df, columns)  # once: a stream can be read but once
        has_cutoff = cutoff_col in frame.columns
        scores = self.client.score(
            frame.to_native(),
            models,
            id_col=id_col,
            time_col=None,  # a mean has no order
            target_col=target_col,
            cutoff_col=cutoff_col if has_cutoff else None,
            losses=[{"name": self.loss, **self.parameters}],
            missing="skip",
            zero_division="zero" if self.loss == _ZERO_IS_0 else "skip",
            progress=False,
        )
        long = nw.from_native(scores, eager_only=True)
        names = list(dict.fromkeys(models))
        keys = [cutoff_col, id_col] if has_cutoff else [id_col]
        wide = long.gather_every(len(names)).select(*keys)  # the models of a series are together
        means = (
            long[self.loss].gather_every(len(names), offset).alias(name)
            for offset, name in enumerate(names)
        )
        wide = nw.maybe_reset_index(wide).with_columns(*map(nw.maybe_reset_index, means))
        return cast("FrameT", nw.maybe_reset_index(wide.sort(*keys)).to_native())

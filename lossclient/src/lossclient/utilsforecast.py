"""The service's losses with the signature of ``utilsforecast.losses``.

They drop into ``utilsforecast.evaluation.evaluate``, which knows a metric by its name and its
arguments. The library itself is not needed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import narwhals as nw

from lossclient.arguments import NAMES, are_names, require
from lossclient.client import Client
from lossclient.columns import Columns
from lossclient.frames import FrameT, open_frame
from lossclient.options import ZeroDivision


@dataclass(frozen=True)
class Losses:
    """MAE, MAPE and sMAPE at a service, as utilsforecast defines them.

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

    def mae(
        self,
        df: FrameT,
        models: Sequence[str],
        id_col: str = "unique_id",
        target_col: str = "y",
        cutoff_col: str = "cutoff",
    ) -> FrameT:
        """Return the mean absolute error: a row for each id and cutoff, a column a model.

        Args:
            df: A pandas, polars or pyarrow frame.
            models: Columns of predictions.
            id_col: Names a series.
            target_col: The actual values.
            cutoff_col: Names a series together with the id, where the frame has such a column.

        Raises:
            LossClientError: See `lossclient.exceptions`.
        """
        wide = self._wide("mae", "skip", df, models, id_col, target_col, cutoff_col)
        return cast("FrameT", wide)

    def mape(
        self,
        df: FrameT,
        models: Sequence[str],
        id_col: str = "unique_id",
        target_col: str = "y",
        cutoff_col: str = "cutoff",
    ) -> FrameT:
        """Return the mean absolute percentage error, no factor 100; see `mae`."""
        wide = self._wide("mape", "skip", df, models, id_col, target_col, cutoff_col)
        return cast("FrameT", wide)

    def smape(
        self,
        df: FrameT,
        models: Sequence[str],
        id_col: str = "unique_id",
        target_col: str = "y",
        cutoff_col: str = "cutoff",
    ) -> FrameT:
        """Return the symmetric one, between 0 and 1; see `mae`."""
        wide = self._wide("smape", "zero", df, models, id_col, target_col, cutoff_col)
        return cast("FrameT", wide)

    def _wide(  # noqa: PLR0913, PLR0917 - the library's arguments, and what differs
        self,
        loss: str,
        zero_division: ZeroDivision,
        df: Any,
        models: Sequence[str],
        id_col: str,
        target_col: str,
        cutoff_col: str,
    ) -> Any:
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
            losses=[loss],
            missing="skip",
            zero_division=zero_division,
            progress=False,
        )
        long = nw.from_native(scores, eager_only=True)
        names = list(dict.fromkeys(models))
        keys = [cutoff_col, id_col] if has_cutoff else [id_col]
        wide = long.gather_every(len(names)).select(*keys)  # the models of a series are together
        means = (
            long[loss].gather_every(len(names), offset).alias(name)
            for offset, name in enumerate(names)
        )
        wide = nw.maybe_reset_index(wide).with_columns(*map(nw.maybe_reset_index, means))
        return nw.maybe_reset_index(wide.sort(*keys)).to_native()

"""The scales of series by their history: how far off a seasonal naive forecast was in it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.losses import LOSSES
from loss_scoring.core.table.columns import Layout, faults_of, text_faults
from loss_scoring.core.table.joining.faults import TableError
from loss_scoring.core.table.joining.groups import Groups
from loss_scoring.core.table.joining.seasonal import SeasonalDifferences
from loss_scoring.core.table.numbers import array_of_column


class History:
    """Past values of series, of which scales are made.

    The scale of ``mase`` is the mean of ``|y[t] - y[t - seasonality]|`` over the rows of a series
    up to its cutoff, that of ``rmsse`` the root of the mean of its square; as in
    ``utilsforecast.losses``. No row after the cutoff is used, whatever the history holds; where
    series have no cutoff, none that is not before their first row.

    Args:
        table: One row a series and time, in any order.
        keys: The columns that name a series; its history has those of them that are in the table,
            but for the cutoff, and at least one.
        time: The column of times.
        target: The column of values. A difference with a missing value is left out.
        seasonality: How many rows a season has.
        cutoff: The column of cutoffs among the keys.

    Raises:
        TableError: If a column is absent or of the wrong type, or a series has one time twice.
        ValueError: If ``seasonality`` is less than 1.

    Example:
        >>> from loss_scoring.core.table import group_rows
        >>> table = pa.table({"unique_id": ["a"] * 4, "ds": [1, 2, 3, 4], "y": [1, 2, 4, 9]})
        >>> history = History(table, ["unique_id", "cutoff"], "ds", "y", seasonality=1)
        >>> series = group_rows(pa.table({"unique_id": ["a", "a", "b"], "cutoff": [3, 2, 3]}))
        >>> history.scales("mase", series).tolist()
        [1.5, 1.0, nan]
    """

    def __init__(  # noqa: PLR0913, PLR0917 - columns
        self,
        table: pa.Table,
        keys: Sequence[str],
        time: str,
        target: str,
        seasonality: int,
        cutoff: str = "cutoff",
    ) -> None:
        if seasonality < 1:
            raise ValueError(f"seasonality must be at least 1, not {seasonality}")
        own = [name for name in keys if name != cutoff]
        ids = [name for name in own if name in table.schema.names] or own
        layout = Layout(tuple(ids), target, (time,))
        faults = [*text_faults(table, [target]), *faults_of(table.schema, layout)]
        faults = [fault for fault in faults if fault[0] != time or time not in table.schema.names]
        if faults:
            raise TableError(*((name, f"{detail}, in the history") for name, detail in faults))
        values = array_of_column(table.column(target), pa.float64())
        self._differences = SeasonalDifferences(
            table.select(ids), time, table.column(time), values, seasonality, cutoff
        )

    def scales(
        self, loss: str, groups: Groups, times: pa.ChunkedArray | None = None
    ) -> NDArray[np.float64]:
        """Return what a loss of each series is divided by, NaN without a difference before it.

        Args:
            loss: A loss that is scaled.
            groups: The series.
            times: Of their rows, in the order of their table; needed without cutoffs.

        Raises:
            TableError: If neither cutoffs nor times are known, or they cannot be compared with
                those of the history.
        """
        return self._differences.scales(groups, times, squared=LOSSES[loss].root)

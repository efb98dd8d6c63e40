"""Actual values from a table of their own, beside the forecasts that they belong to.

Beside them is what else tables of core and frames of the client have in common: types, faults,
spelling, and what columns are by their names.

This folder imports pyarrow, numpy and itself alone, by relative names: the wheel of ``lossclient``
holds it as well, see ``docs/decisions/0027-comparison-under-two-names.md``.
"""

from .actuals import Actuals, Matches, UnmatchedWarning
from .faults import TableError

__all__ = ["Actuals", "Matches", "TableError", "UnmatchedWarning"]

"""What tables of core and frames of the client have in common: which rows belong together.

Rows of one series (``groups``), of a forecast and its actual value (``actuals``), of a series and
its history (``seasonal``); and what that takes of types, faults, spelling and names of columns.

This folder imports pyarrow, numpy and itself alone, by relative names: the wheel of ``lossclient``
holds it as well, see ``docs/decisions/0027-comparison-under-two-names.md``.
"""

from .actuals import Actuals, Matches, UnmatchedWarning
from .faults import TableError

__all__ = ["Actuals", "Matches", "TableError", "UnmatchedWarning"]

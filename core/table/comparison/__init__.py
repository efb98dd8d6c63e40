"""From scores to decisions: leaderboards, pairwise comparisons and a gate, of any frame of scores.

Scores are a row a series and model, as ``score_table``, the client and the command line give
them. Series are compared only where every model has a loss, unless the caller asks for something
else, and what was left out is said. Sums are exact, so an aggregate has the same bits in whatever
order and parts the series were scored.

This folder imports pyarrow, numpy, ``joining`` and itself alone, by relative names: the wheel of
``lossclient`` holds it as well, see ``docs/decisions/0027-comparison-under-two-names.md``.
"""

from .boards import Leaderboard, leaderboard, pairwise
from .checks import Check, CheckError, NotComparableError, WorseError, check
from .frames import ScoresError, ScoresInParts

__all__ = [
    "Check",
    "CheckError",
    "Leaderboard",
    "NotComparableError",
    "ScoresError",
    "ScoresInParts",
    "WorseError",
    "check",
    "leaderboard",
    "pairwise",
]

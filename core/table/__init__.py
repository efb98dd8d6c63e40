"""Score a whole Arrow table in one call; the one part of ``core`` that needs pyarrow.

A table in the long form has one row an element, as a forecasting pipeline keeps it: columns that
together name a series, one column of targets, and one column of predictions a model. The answer
has one row a series and model. The command line, the service's long form and ``score_table`` read
and answer such tables by these functions, so they agree to the bit.

It is not imported by ``core``, which does without Arrow.
"""

from loss_scoring.core.table.bulk import leaderboard_ray, leaderboard_spark, score_ray, score_spark
from loss_scoring.core.table.columns import (
    Duplicates,
    Layout,
    element_type,
    faults_of,
    find_models,
    find_time,
    key_faults,
    text_faults,
)
from loss_scoring.core.table.comparison import (
    Check,
    CheckError,
    Leaderboard,
    NotComparableError,
    ScoresError,
    ScoresInParts,
    WorseError,
    check,
    leaderboard,
    pairwise,
)
from loss_scoring.core.table.comparison.pooling import break_down
from loss_scoring.core.table.history import History
from loss_scoring.core.table.joining import Actuals, Matches, TableError, UnmatchedWarning
from loss_scoring.core.table.joining.cells import (
    as_type,
    holds_numbers,
    is_text,
    one_array,
    plain_type,
    spell_type,
)
from loss_scoring.core.table.joining.faults import HINT, listed, suggestion
from loss_scoring.core.table.joining.groups import (
    Groups,
    NullKeyError,
    RepeatedTimeError,
    Repeats,
    Runs,
    find_repeats,
    find_runs,
    group_rows,
    increases,
)
from loss_scoring.core.table.joining.roles import (
    LeftOutWarning,
    ModelColumns,
    holds_codes,
    spell_left_out,
)
from loss_scoring.core.table.joining.spelling import spell, spell_cell, spell_series, speller
from loss_scoring.core.table.numbers import (
    array_of,
    array_of_column,
    narrowest,
)
from loss_scoring.core.table.score import (
    MissingElementError,
    answer_schema,
    answer_table,
    interleave,
    interleave_elements,
    nulls_of,
    score_models,
    score_table,
)
from loss_scoring.core.table.weights import VALID_WEIGHT, CellsError, scales_of, weights_of

__all__ = [
    "HINT",
    "VALID_WEIGHT",
    "Actuals",
    "CellsError",
    "Check",
    "CheckError",
    "Duplicates",
    "Groups",
    "History",
    "Layout",
    "Leaderboard",
    "LeftOutWarning",
    "Matches",
    "MissingElementError",
    "ModelColumns",
    "NotComparableError",
    "NullKeyError",
    "RepeatedTimeError",
    "Repeats",
    "Runs",
    "ScoresError",
    "ScoresInParts",
    "TableError",
    "UnmatchedWarning",
    "WorseError",
    "answer_schema",
    "answer_table",
    "array_of",
    "array_of_column",
    "as_type",
    "break_down",
    "check",
    "element_type",
    "faults_of",
    "find_models",
    "find_repeats",
    "find_runs",
    "find_time",
    "group_rows",
    "holds_codes",
    "holds_numbers",
    "increases",
    "interleave",
    "interleave_elements",
    "is_text",
    "key_faults",
    "leaderboard",
    "leaderboard_ray",
    "leaderboard_spark",
    "listed",
    "narrowest",
    "nulls_of",
    "one_array",
    "pairwise",
    "plain_type",
    "scales_of",
    "score_models",
    "score_ray",
    "score_spark",
    "score_table",
    "spell",
    "spell_cell",
    "spell_left_out",
    "spell_series",
    "spell_type",
    "speller",
    "suggestion",
    "text_faults",
    "weights_of",
]

"""The compiled loop that sorts rows by the numbers of their series: once each, comparing none."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201 - numba infers types

import numpy as np

from loss_scoring.core.compiled import compiled


@compiled
def sort_rows(ranks, numbers, offsets, order):
    """Write rows by the number of their rank, equal ones in their order.

    Args:
        ranks: One of each row.
        numbers: Of each rank, from 0.
        offsets: A 0 for each number, and one more; becomes where the rows of each start and end.
        order: Becomes the rows.
    """
    for row in range(len(ranks)):
        offsets[numbers[ranks[row]] + 1] += 1
    for number in range(1, len(offsets)):
        offsets[number] += offsets[number - 1]
    for row in range(len(ranks)):
        number = numbers[ranks[row]]
        order[offsets[number]] = row
        offsets[number] += 1
    for number in range(len(offsets) - 1, 0, -1):
        offsets[number] = offsets[number - 1]
    offsets[0] = 0


def warm_up() -> None:
    """Compile the loop, or load it from the cache."""
    for kind in (np.int32, np.int64):
        sort_rows(np.zeros(1, kind), *(np.zeros(size, np.int64) for size in (1, 2, 1)))

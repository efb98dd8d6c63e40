"""Ordinary JSON requests, read without a Python object per number.

The numbers are lifted out of the body; what the skeleton says about them is a plan, which clients
that send the same series again and again make only once. A body that is unusual in any way is
left to the strict reader in ``service.codecs.json``, which also finds the words for what is wrong.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core import Ragged, ScoreOptions
from service.codecs.json_numbers import deal, lift
from service.codecs.json_text import parse
from service.codecs.options import JSON_OPTIONS, dtype_from_json, options_from_json
from service.codecs.request import MAX_ID_BYTES, ScoreRequest, check_elements
from service.errors import Faults, ServiceError

_FIELDS = {*JSON_OPTIONS, "series"}
_SIDES = ("prediction", "target")
_LIFTED = [0]
"""What stands in a skeleton for a list of numbers."""
_REMEMBERED_BYTES = 4096


@dataclass(frozen=True, eq=False)
class _Plan:
    """What a skeleton says.

    Attributes:
        options: What to compute.
        dtype: float32 or float64.
        ids: One a series.
        rows: For each series, how many lists of numbers its two sides have.
        lists: How many there are in all.
        target_first: For each series, whether its target stands before its prediction.
        plain: Whether a side is one list of numbers, not a list of rows.
    """

    options: ScoreOptions
    dtype: str
    ids: Sequence[int | str]
    rows: NDArray[np.int64]
    lists: int
    target_first: NDArray[np.bool_]
    plain: bool


def decode_lifted(body: bytes | memoryview, max_elements: int) -> ScoreRequest | None:
    """Read a request; None if it is not an ordinary one.

    Raises:
        TooLargeError: If it has more than ``max_elements`` elements.
    """
    lifted = lift(body)
    if lifted is None:
        return None
    short = len(lifted.skeleton) <= _REMEMBERED_BYTES
    plan = _remembered(lifted.skeleton) if short else _plan(lifted.skeleton)
    # Where the skeleton has [false], which equals [0], a list is missing from the count.
    if plan is None or plan.lists != len(lifted.counts):
        return None
    if lifted.nulls and plan.options.missing == "error":
        return None
    dealt = deal(lifted, plan.rows, plan.target_first, plan.dtype)
    if dealt is None:
        return None
    check_elements(len(dealt.prediction), max_elements)
    prediction = Ragged.trusted(torch.from_numpy(dealt.prediction), torch.from_numpy(dealt.offsets))
    return ScoreRequest(
        prediction=prediction,
        target=prediction.like(torch.from_numpy(dealt.target)),
        options=plan.options,
        ids=plan.ids,
        channels=None if plan.plain else dealt.widths,
    )


def _plan(skeleton: bytes) -> _Plan | None:
    """Read a skeleton, checking all series at once; None if anything is amiss."""
    try:
        document = parse(skeleton)
    except ServiceError:
        return None
    if not isinstance(document, dict) or not document.keys() <= _FIELDS:
        return None
    faults = Faults()
    options = options_from_json(document, faults)
    dtype = dtype_from_json(document, faults)
    series = document.get("series")
    if faults.count or not isinstance(series, list) or set(map(type, series)) != {dict}:
        return None
    orders = set(map(tuple, series))
    if not all({*_SIDES} <= {*order} <= {"id", *_SIDES} for order in orders):
        return None
    ids = tuple([one.get("id", i) for i, one in enumerate(series)])
    sides = [[one[side] for one in series] for side in _SIDES]
    plain = all(side.count(_LIFTED) == len(series) for side in sides)
    rows = np.ones((len(series), 2), np.int64) if plain else _rows(sides)
    if rows is None or not _are_sound(ids):
        return None
    if len(orders) == 1:
        target_first = np.full(len(series), _is_target_first(series[0]))
    else:
        target_first = np.array([_is_target_first(one) for one in series])
    return _Plan(options, dtype, ids, rows, int(rows.sum()), target_first, plain)


_remembered = lru_cache(maxsize=512)(_plan)


def _is_target_first(series: dict[str, Any]) -> bool:
    return next(name for name in series if name != "id") == "target"


def _rows(sides: list[list[Any]]) -> NDArray[np.int64] | None:
    """Return how many rows of numbers each side of each series has; None if one has none."""
    for side in sides:
        if set(map(type, side)) != {list}:
            return None
        rows = list(itertools.chain.from_iterable(side))
        if rows.count(_LIFTED) != len(rows):
            return None
    counts = np.array([(len(p), len(y)) for p, y in zip(*sides, strict=True)], np.int64)
    return counts if counts.all() else None


def _are_sound(ids: Sequence[Any]) -> bool:
    kinds = set(map(type, ids))
    if kinds == {str}:
        return max(map(len, ids)) * 4 <= MAX_ID_BYTES  # a character is 4 bytes at most
    return kinds == {int} and min(ids) >= -(2**63) and max(ids) < 2**63

"""Scores to JSON."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from loss_scoring.core import Scores
from loss_scoring.service.codecs import long_answer
from loss_scoring.service.codecs.parts import joined
from loss_scoring.service.codecs.request import ScoreRequest

_AT_ONCE = 1 << 14
"""Elements that are written without letting other threads run."""


def encode(request: ScoreRequest, scores: Scores) -> list[memoryview]:
    """Write an answer, in parts if it is long.

    A loss or gradient that is NaN or infinite is null, as JSON has neither.
    """
    if request.long is not None:
        return _written(long_answer.document(request, request.long, scores), request.elements)
    losses, masked, gradients = scores.arrays()
    answer: dict[str, Any] = {
        "ids": request.id_list(),
        "lengths": request.prediction.lengths,
        "losses": losses,
        "masked": masked,
    }
    if request.options.gradients:
        offsets = request.prediction.offsets.tolist()
        answer["gradients"] = {
            name: _cut(column, offsets, request.channels) for name, column in gradients.items()
        }
    return _written(answer, request.elements)


def _written(answer: dict[str, Any], elements: int) -> list[memoryview]:
    if elements <= _AT_ONCE:
        return [memoryview(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))]
    return joined([memoryview(piece) for piece in _pieces(answer, elements)])


def _pieces(value: Any, elements: int) -> Iterator[bytes | memoryview]:
    """Write a long answer piece by piece, as orjson lets no other thread run meanwhile.

    Args:
        value: A column, the rows of one, or an object of them.
        elements: The most numbers there are in a column.
    """
    step = len(value) * _AT_ONCE // elements
    if isinstance(value, dict):
        for i, (name, column) in enumerate(value.items()):
            yield b"%b%b:" % (b"," if i else b"{", orjson.dumps(name))
            yield from _pieces(column, elements)
        yield b"}" if value else b"{}"
    elif step == 0 and isinstance(value[0], np.ndarray):  # long rows
        for i, row in enumerate(value):
            yield b"," if i else b"["
            yield from _pieces(row, row.size)
        yield b"]"
    else:
        for start in range(0, len(value), max(step, 1)):
            yield b"," if start else b"["
            part = value[start : start + max(step, 1)]
            yield memoryview(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY))[1:-1]
        yield b"]"


def _cut(
    flat: npt.NDArray[Any], offsets: list[int], channels: npt.NDArray[np.int64] | None
) -> list[npt.NDArray[Any]]:
    rows = [flat[a:b] for a, b in itertools.pairwise(offsets)]
    if channels is not None:
        rows = [row.reshape(-1, c) if c else row for row, c in zip(rows, channels, strict=True)]
    return rows

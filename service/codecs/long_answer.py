"""Answers in the long form: a row is a series and model; in Arrow, or columns of a document."""

from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from loss_scoring.core import Scores
from loss_scoring.core.table import Groups, answer_table, interleave, spell, spell_series
from loss_scoring.service.codecs.options import escape
from loss_scoring.service.codecs.request import ALLOW_MISSING, LongForm, ScoreRequest
from loss_scoring.service.errors import Faults


def check_missing(request: ScoreRequest, long: LongForm) -> None:
    """Refuse elements that are missing or not finite; see ``service.codecs.arrow``."""
    groups, rows = long.groups, int(long.groups.offsets[-1])
    target, predictions = request.target.array, request.prediction.array
    sides = [
        target[:rows],
        *(predictions[m * rows :][:rows] for m in range(len(long.layout.models))),
    ]
    faults = Faults()
    for name, side in zip(long.layout.numbers, sides, strict=True):
        places = np.flatnonzero(~np.isfinite(side))
        if groups.order is not None:
            places = places[np.argsort(groups.order[places])]
        faults.add_each(places, partial(_missing, f"/{escape(name)}", groups))
    faults.check()


def _missing(pointer: str, groups: Groups, place: int) -> tuple[str, str]:
    row = place if groups.order is None else int(groups.order[place])
    series = int(np.searchsorted(groups.offsets, place, side="right")) - 1
    name = spell_series(groups.keys, series)
    return f"{pointer}/{row}", f"of the series {name} is missing or not finite; {ALLOW_MISSING}"


def answer(request: ScoreRequest, long: LongForm, scores: Scores) -> pa.Table:
    """Return an answer in Arrow: one row a series and model."""
    groups, layout = long.groups, long.layout
    table = answer_table(groups.keys, groups.offsets, layout.models, scores, request.options)
    return table.replace_schema_metadata({"left_out": orjson.dumps(dict(layout.left_out))})


def document(request: ScoreRequest, long: LongForm, scores: Scores) -> dict[str, Any]:
    """Return an answer in JSON: the same rows, as columns."""
    groups, models = long.groups, long.layout.models
    losses, masked, gradients = scores.arrays()
    made: dict[str, Any] = {
        "groups": {
            name: [key for key in spell(column) for _ in models]
            for name, column in zip(groups.keys.column_names, groups.keys.columns, strict=True)
        },
        "models": list(models) * len(groups),
        "lengths": np.repeat(np.diff(groups.offsets), len(models)),
        "losses": {name: interleave(column, len(models)) for name, column in losses.items()},
        "masked": {name: interleave(column, len(models)) for name, column in masked.items()},
        "left_out": dict(long.layout.left_out),
    }
    if request.options.gradients:
        offsets = request.prediction.offsets
        starts, stops = (
            interleave(bound, len(models)).tolist() for bound in (offsets[:-1], offsets[1:])
        )
        made["gradients"] = {
            name: [flat[a:b] for a, b in zip(starts, stops, strict=True)]
            for name, flat in gradients.items()
        }
    return made

"""Which series and models go in which request.

Requests are of bounded weight, and cut between series; a series that is too large by itself is cut
between models.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from lossclient.forecasts import Forecasts
from lossclient.options import ScoreOptions
from lossclient.wire import Part, computed_in, row_bytes


def plan(forecasts: Forecasts, options: ScoreOptions, limit: int) -> list[Part]:
    """Return the requests, at least one; models that are computed in different types go apart.

    A request weighs at most ``limit`` bytes together with its gradients, but for a single series of
    one model.
    """
    types = [computed_in(forecasts, model) for model in range(len(forecasts.predictions))]
    wholes = [
        Part(0, len(forecasts), tuple(i for i, other in enumerate(types) if other == type_))
        for type_ in dict.fromkeys(types)
    ]
    gradients = options.loss_count if options.gradients else 0
    return [part for whole in wholes for part in cut(forecasts, whole, limit, gradients)]


def weight_of(forecasts: Forecasts, part: Part, gradients: int = 0) -> int:
    """Return the bytes of a body, and of so many gradients for each prediction that come back."""
    elements = int(forecasts.offsets[part.stop] - forecasts.offsets[part.start])
    return elements * row_bytes(forecasts, part, gradients)


def cut(forecasts: Forecasts, part: Part, limit: int, gradients: int = 0) -> Iterator[Part]:
    """Yield parts within a weight, each of as many series as it may have."""
    ends = forecasts.offsets[part.start : part.stop + 1] * row_bytes(forecasts, part, gradients)
    start, last = 0, part.series
    while True:
        stop = int(np.searchsorted(ends, ends[start] + limit, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        smaller = part._replace(start=part.start + start, stop=part.start + stop)
        if smaller.series == 1 < smaller.rows and ends[stop] - ends[start] > limit:
            for half in halve(forecasts, smaller):
                yield from cut(forecasts, half, limit, gradients)
        else:
            yield smaller
        if stop == last:
            return
        start = stop


def halve(forecasts: Forecasts, part: Part) -> tuple[Part, Part]:
    """Return two parts of about as many elements: of fewer series, or of fewer models of one."""
    if part.series == 1:
        middle = len(part.models) // 2
        return (
            part._replace(models=part.models[:middle]),
            part._replace(models=part.models[middle:]),
        )
    inner = forecasts.offsets[part.start + 1 : part.stop]
    half = (forecasts.offsets[part.start] + forecasts.offsets[part.stop]) / 2
    at = part.start + 1 + int(np.argmin(np.abs(inner - half)))
    return part._replace(stop=at), part._replace(start=at)


def join(forecasts: Forecasts, answers: Mapping[Part, Sequence[pa.Table]]) -> pa.Table:
    """Return a row for each series and model, the models of a series together.

    Gradients that are float for one model and double for another become double.
    """
    parts = sorted(answers)
    whole = pa.concat_tables(
        (table for part in parts for table in answers[part]), promote_options="permissive"
    )
    models = len(forecasts.predictions)
    places = np.concatenate(
        [
            (np.arange(part.start, part.stop)[:, None] * models + part.models).ravel()
            for part in parts
        ]
    )
    in_order = bool((places[1:] > places[:-1]).all())
    return whole if in_order else whole.take(pa.array(np.argsort(places)))

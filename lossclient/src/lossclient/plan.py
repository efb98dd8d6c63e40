"""Cuts series into requests of bounded weight, between series."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from lossclient.forecasts import Forecasts
from lossclient.options import ScoreOptions
from lossclient.wire import Part, Weight, weight


def plan(forecasts: Forecasts, options: ScoreOptions, limit: int) -> list[Part]:
    """Return the requests, model by model, in the order of series; at least one a model.

    Args:
        forecasts: The series.
        options: What is asked for.
        limit: The most bytes of a request together with its gradients; a series that is larger
            goes by itself.
    """
    return [
        part
        for model in range(len(forecasts.predictions))
        for part in cut(
            forecasts,
            Part(model, 0, len(forecasts)),
            weight_of(forecasts, model, options),
            limit,
        )
    ]


def weight_of(forecasts: Forecasts, model: int, options: ScoreOptions) -> Weight:
    """Return what an element and a series weigh in a request with these options."""
    return weight(forecasts, model, len(options.losses) if options.gradients else 0)


def cut(forecasts: Forecasts, part: Part, weight: Weight, limit: int) -> Iterator[Part]:
    """Yield parts as large as they may be."""
    offsets = forecasts.offsets[part.start : part.stop + 1]
    ends = offsets * weight.element + np.arange(len(offsets)) * weight.series
    start, last = 0, len(offsets) - 1
    while True:
        stop = int(np.searchsorted(ends, ends[start] + limit, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield Part(part.model, part.start + start, part.start + stop)
        if stop == last:
            return
        start = stop


def halve(forecasts: Forecasts, part: Part) -> tuple[Part, Part]:
    """Return two parts of about as many elements, each with a series at least."""
    inner = forecasts.offsets[part.start + 1 : part.stop]
    middle = (forecasts.offsets[part.start] + forecasts.offsets[part.stop]) / 2
    at = part.start + 1 + int(np.argmin(np.abs(inner - middle)))
    return part._replace(stop=at), part._replace(start=at)


def join(forecasts: Forecasts, answers: Mapping[Part, Sequence[pa.Table]]) -> list[pa.Table]:
    """Return one table a model, in the order of series, from those of the parts."""
    return [
        pa.concat_tables(
            table for part in sorted(answers) if part.model == model for table in answers[part]
        )
        for model in range(len(forecasts.predictions))
    ]

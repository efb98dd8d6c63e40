"""What every peer but the naive one computes with: the losses in torch, vectorised over series.

Elements lie flat, one series after the other, as in ours; torch.segment_reduce takes the means and
autograd the gradients.
"""

from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypedDict

torch.set_num_threads(1)  # one worker a core does better than one operation on two


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 0 with gradient 0 where the quotient is NaN or infinite."""
    usable = torch.isfinite(numerator.detach() / denominator.detach())
    return torch.where(usable, numerator, 0) / torch.where(usable, denominator, 1)


TERMS = {
    "mae": lambda p, y: (y - p).abs(),
    "mape": lambda p, y: quotient(y - p, y).abs(),
    "smape": lambda p, y: quotient((y - p).abs(), (y.abs() + p.abs()).detach()),
}


class Series(TypedDict):
    prediction: list[float]
    target: list[float]


class Request(TypedDict):
    losses: list[str]
    gradients: bool
    series: list[Series]


def flat(lists: list[list[float]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(lists), np.float64)


def score(
    names: tuple[str, ...], p: np.ndarray, y: np.ndarray, lengths: np.ndarray, *, gradients: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Score series that lie flat.

    Returns:
        By name of the loss: a value for each series, and (if wanted) a flat gradient.
    """
    prediction = torch.from_numpy(p).requires_grad_(gradients)
    target, sizes = torch.from_numpy(y), torch.from_numpy(lengths)
    values, slopes = {}, {}
    for name in names:
        terms = TERMS[name](prediction, target)
        loss = torch.segment_reduce(terms, "mean", lengths=sizes, unsafe=True)
        if gradients:
            (slope,) = torch.autograd.grad(loss.sum(), prediction)
            slopes[name] = slope.numpy()
        values[name] = loss.detach().numpy()
    return values, slopes


def score_requests(requests: list[Request]) -> list[dict[str, Any]]:
    """Score a batch of requests; those with the same options together, in one call."""
    answers: list[dict[str, Any]] = [{} for _ in requests]
    groups: dict[tuple[tuple[str, ...], bool], list[int]] = {}
    for index, request in enumerate(requests):
        options = tuple(request["losses"]), request["gradients"]
        groups.setdefault(options, []).append(index)
    for (names, gradients), members in groups.items():
        series = [one for index in members for one in requests[index]["series"]]
        lengths = np.array([len(one["target"]) for one in series])
        p = flat([one["prediction"] for one in series])
        y = flat([one["target"] for one in series])
        values, slopes = score(names, p, y, lengths, gradients=gradients)
        rows = {name: np.split(slope, lengths.cumsum()[:-1]) for name, slope in slopes.items()}
        start = 0
        for index in members:
            stop = start + len(requests[index]["series"])
            losses = {name: value[start:stop].tolist() for name, value in values.items()}
            answers[index]["losses"] = losses
            if gradients:
                answers[index]["gradients"] = {
                    name: [one.tolist() for one in row[start:stop]] for name, row in rows.items()
                }
            start = stop
    return answers

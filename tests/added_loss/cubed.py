"""A loss that the project lacks, in one file, and ``loss-scoring`` with it.

``cubed.py core`` scores standard input by ``core.score``; any other arguments are those of the
command.
"""

import json
import sys
from types import MappingProxyType

import numpy as np
import torch

from loss_scoring.core import Ragged, score
from loss_scoring.core.losses import Loss, Parameter, register
from loss_scoring.core.losses.elementwise import absolute, constant, signed


def term(p, y, factor):
    d = absolute(y - p)
    return factor * d * d * d


def slope(p, y, g, factor):
    d = y - p
    return signed(constant(3, g) * factor * g * d * d, p, y)


register(
    Loss(
        "cubed",
        "mean cubed error",
        "factor * mean(|y - p|^3)",
        "3 * factor * (p - y) * |p - y| / T",
        source="tests/added_loss/cubed.py",
        module="CubedLoss",
        term=term,
        slope=slope,
        parameters=MappingProxyType({"factor": Parameter(1.0, above=0, below=10)}),
        is_steep=True,
    )
)

if __name__ == "__main__":
    if sys.argv[1:] == ["core"]:
        p, y, offsets = map(np.array, json.load(sys.stdin))
        sides = Ragged(torch.tensor(p), offsets), Ragged(torch.tensor(y), offsets)
        scores = score(*sides, ["cubed:factor=2"], gradients=True)
        print(json.dumps([scores.values["cubed"].tolist(), scores.gradients["cubed"].tolist()]))
    else:
        from loss_scoring.service.cli import main  # only now: it reads the table of losses

        main()

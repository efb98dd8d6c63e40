"""Train one model twice on real series: with the service's loss, and with the local one.

``python examples/train.py --url http://127.0.0.1:8000``. The two runs see the same bits of
gradient, so they end in the same weights; the loss itself is summed in float64 by the service and
in float32 by torch, and may differ in its last bits.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from loss_scoring.core import SmapeLoss
from lossclient import Client
from lossclient.torch import RemoteLoss

DATA = Path(__file__).resolve().parent / "data" / "forecasts.parquet"
PAST, FUTURE = 10, 2


def windows() -> tuple[Tensor, Tensor]:
    """Return real series, cut into what is known and what follows, over the mean of the former."""
    frame = pd.read_parquet(DATA).dropna(subset="y").sort_values("ds")
    rows = [
        part["y"].to_numpy()[: PAST + FUTURE]
        for _, part in frame.groupby(["unique_id", "cutoff"])
        if len(part) >= PAST + FUTURE
    ]
    past, future = torch.tensor(np.array(rows), dtype=torch.float32).split([PAST, FUTURE], dim=1)
    scale = past.abs().mean(dim=1, keepdim=True) + 1
    return past / scale, future / scale


def train(loss_fn: nn.Module, steps: int) -> tuple[np.ndarray, Tensor]:
    """Return the loss at each step, and the weights at the end."""
    torch.manual_seed(0)
    past, future = windows()
    model = nn.Linear(PAST, FUTURE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_fn(model(past), future)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    return np.array(curve, np.float32), weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        remote_loss = RemoteLoss(client, "smape", block_denom_grad=False)
        remote, remote_weights = train(remote_loss, arguments.steps)
    local_loss = SmapeLoss(block_denom_grad=False)
    local, local_weights = train(local_loss, arguments.steps)
    print(f"{remote_loss} at {arguments.url}, {local_loss} here; float32\n")
    print(f"{'step':>4}  {'remote':>12}  {'local':>12}  ulps apart")
    ulps = np.abs(remote.view(np.int32) - local.view(np.int32))
    for step, row in enumerate(zip(remote, local, ulps, strict=True)):
        print("{:4d}  {:12.9f}  {:12.9f}  {}".format(step, *row))
    same = torch.equal(remote_weights, local_weights)
    print(f"\nlosses at most {ulps.max()} ulps apart; weights {'equal' if same else 'NOT equal'}")


if __name__ == "__main__":
    main()

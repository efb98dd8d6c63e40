"""``loss-scoring`` with a kernel that misbehaves; everything else is the real command.

``faulty_device.py serve`` is the service in one process, ``faulty_device.py PARENT CONTROL`` the
worker under a supervisor. CHAOS_DIR is a folder: while ``gate`` lies there, a prediction that
begins with BLOCK holds the device, and says so by ``blocked``; ``ledger`` gets a line for each
batch that was begun: the first prediction and the length of every series. Once ``lost`` lies there
no other worker can open the device: the start ``fails`` or ``crashes``, as the file says.
CHAOS_MEMORY: elements that a batch may have. CHAOS_BATCH_S: seconds that each batch takes beside. A
prediction that begins with POISON fails its batch, with DEADLY ends the process.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loss_scoring.core import ScoreOptions, Scores, kernel_for
from loss_scoring.core.ragged import Buffer
from loss_scoring.service.cli import main
from loss_scoring.service.engine import worker
from loss_scoring.service.processes import worker as worker_process

POISON, BLOCK, DEADLY = 666.0, 777.0, 999.0
_LONGEST_S = 60


class FaultyKernel:
    def __init__(self) -> None:
        self.folder = Path(os.environ["CHAOS_DIR"])
        self.memory = int(os.environ.get("CHAOS_MEMORY", "1000000000"))
        self.batch_s = float(os.environ.get("CHAOS_BATCH_S", "0"))
        self.real = kernel_for(torch.device("cpu"))
        self.fork_server = os.getpid()

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        offsets: Buffer,
        options: ScoreOptions,
        *further: Buffer | None,
    ) -> Scores:
        self.be_lost()
        firsts, lengths = prediction[offsets[:-1]].tolist(), np.diff(offsets).tolist()
        if len(prediction) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if POISON in firsts:
            raise RuntimeError("poisoned")
        with (self.folder / "ledger").open("a") as ledger:
            rows = list(zip(firsts, lengths, strict=True))
            ledger.write(json.dumps(rows) + "\n")
        if DEADLY in firsts:
            os.abort()
        end = time.monotonic() + _LONGEST_S
        while BLOCK in firsts and (self.folder / "gate").exists():
            (self.folder / "blocked").touch()
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(self.batch_s)
        return self.real(prediction, target, offsets, options, *further)

    def be_lost(self) -> None:
        lost = self.folder / "lost"
        if os.getpid() == self.fork_server or not lost.exists():
            return
        if lost.read_text() == "crashes":
            os.abort()
        raise RuntimeError("CUDA error: the device is lost\nFor debugging consider something")


if __name__ == "__main__":
    faulty = FaultyKernel()
    worker.kernel_for = lambda _device: faulty
    if sys.argv[1] == "serve":
        main()
    else:
        worker_process.main()

"""``loss-scoring`` with a kernel that misbehaves; everything else is the real command.

CHAOS_DIR is a folder: while ``gate`` lies there, a prediction that begins with BLOCK holds the
device, and says so by ``blocked``; ``ledger`` gets the first prediction and the length of every
series that was computed. CHAOS_MEMORY: elements that a batch may have. CHAOS_BATCH_S: seconds that
each batch takes beside. A prediction that holds POISON fails its batch.
"""

import os
import time
from pathlib import Path

import torch
from torch import Tensor

from core import ScoreOptions, Scores, kernel_for
from service.cli import main
from service.engine import worker

POISON, BLOCK = 666.0, 777.0


class FaultyKernel:
    def __init__(self) -> None:
        self.folder = Path(os.environ["CHAOS_DIR"])
        self.memory = int(os.environ.get("CHAOS_MEMORY", "1000000000"))
        self.batch_s = float(os.environ.get("CHAOS_BATCH_S", "0"))
        self.real = kernel_for(torch.device("cpu"))

    def __call__(
        self, prediction: Tensor, target: Tensor, offsets: Tensor, options: ScoreOptions
    ) -> Scores:
        if len(prediction) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if bool((prediction == POISON).any()):
            raise RuntimeError("poisoned")
        while bool((prediction == BLOCK).any()) and (self.folder / "gate").exists():
            (self.folder / "blocked").touch()
            time.sleep(0.005)
        time.sleep(self.batch_s)
        with (self.folder / "ledger").open("a") as ledger:
            rows = zip(prediction[offsets[:-1]].tolist(), offsets.diff().tolist(), strict=True)
            ledger.writelines(f"{value} {length}\n" for value, length in rows)
        return self.real(prediction, target, offsets, options)


if __name__ == "__main__":
    faulty = FaultyKernel()
    worker.kernel_for = lambda _device: faulty
    main()

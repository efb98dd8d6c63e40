"""A device worker that does what predictions tell it, under a supervisor.

666 kills the process. 777 blocks while the gate file exists, and says so by a file named
``blocked``. Each batch leaves a line in the ledger: the process and what its predictions start
with. ``faulty_worker.py FOLDER PARENT CONTROL`` is the worker, ``faulty_worker.py FOLDER --port
N`` the supervisor.
"""

import json
import os
import sys
import time
from pathlib import Path

from torch import Tensor

from core import ScoreOptions, Scores
from core.kernels import plain_kernel
from service.cli import worker
from service.engine.worker import DeviceWorker
from service.settings import Settings
from service.supervisor import Supervisor
from service.telemetry.logs import configure

FOLDER = Path(sys.argv[1])


def kernel(prediction: Tensor, target: Tensor, offsets: Tensor, options: ScoreOptions) -> Scores:
    firsts = prediction[offsets[:-1]].tolist()
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(json.dumps([os.getpid(), firsts]) + "\n")
    if 666.0 in firsts:
        os.abort()
    end = time.monotonic() + 60
    while 777.0 in firsts and (FOLDER / "gate").exists():
        (FOLDER / "blocked").touch()
        assert time.monotonic() < end
        time.sleep(0.002)
    return plain_kernel(prediction, target, offsets, options)


if __name__ == "__main__":
    if sys.argv[2] == "--port":
        os.environ["LOSS_SCORING_PORT"] = sys.argv[3]
        command = (sys.executable, __file__, str(FOLDER))
        settings = Settings.from_environment()
        configure(settings, "supervisor")
        sys.exit(Supervisor(settings, worker=command).run())
    worker.main(lambda device: DeviceWorker(device, kernel))

"""The service with a device that misbehaves on purpose, at certain values of the prediction.

666: the kernel raises. 777: it blocks while the gate file exists, and says so by a file named
``blocked`` beside it. 888: it raises from then on. Every value that starts a prediction is written
to the ledger once it was computed.
"""

import argparse
import signal
import time
from pathlib import Path

import torch
import uvicorn
from torch import Tensor

from loss_scoring.core import ScoreOptions, Scores
from loss_scoring.core.kernels.plain import plain_kernel
from loss_scoring.core.ragged import Buffer
from loss_scoring.service.app import create_app
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.server.protocol import bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

POISON, BLOCK, BREAK = 666.0, 777.0, 888.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("gate", type=Path)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()

    broken = False

    def kernel(
        prediction: Tensor,
        target: Tensor,
        offsets: Buffer,
        options: ScoreOptions,
        *further: Buffer | None,
    ) -> Scores:
        nonlocal broken
        broken = broken or bool((prediction == BREAK).any())
        if broken or bool((prediction == POISON).any()):
            raise RuntimeError("poisoned")
        deadline = time.monotonic() + 60
        while bool((prediction == BLOCK).any()) and arguments.gate.exists():
            arguments.gate.with_name("blocked").touch()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with arguments.ledger.open("a") as ledger:
            ledger.writelines(f"{value}\n" for value in prediction[offsets[:-1]].tolist())
        return plain_kernel(prediction, target, offsets, options, *further)

    settings = Settings(
        port=arguments.port,
        max_elements=100,
        max_queued_elements=200,
        inline_elements=0,
        idle_inline_elements=0,
    )
    app = create_app(settings, DeviceWorker(torch.device("cpu"), kernel))
    protocol = bounded(settings, Metrics())
    server = uvicorn.Server(
        uvicorn.Config(app, port=settings.port, log_level="error", http=protocol)
    )
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()


if __name__ == "__main__":
    main()

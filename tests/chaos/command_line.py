r"""`loss-scoring score` among other writers, signals, full disks and strangers; an empty host.

Two write one output at the same time, of which the last must win, whole. One is ended by a signal
while it writes, which must leave nothing behind, and one has a disk that is full after 100,000
bytes, of which standard error must speak, and no stack trace. A file whose columns and ids are
sequences that move a terminal's cursor must be shown without them. And a service whose host is set
but empty must not start, rather than listen on every address of the machine.
"""

import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from finding import Finding, at_least, at_most
from instance import LOSS_SCORING, SERVE

FULL = 100_000
"""Bytes that a file may have where the disk is full."""
STRANGE = "x\x1b]0;title\x07\x9b2J\u202e\nerror: forged"


def _write(path: Path, rows: int, length: int) -> None:
    count = np.arange(rows)
    columns = {"unique_id": count // length, "y": np.ones(rows), "A": np.linspace(1, 2, rows)}
    pq.write_table(pa.table(columns), path)


def _score(source: Path, output: Path, **options: object) -> "subprocess.Popen[str]":
    command = [LOSS_SCORING, "score", source, "-o", output]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def _two_writers(folder: Path, sources: list[Path]) -> tuple[int, int]:
    """Return how many of two succeeded, and of one output that both wrote how often it is whole."""
    whole = []
    for source in sources:
        alone = source.with_suffix(".csv")
        _score(source, alone).wait()
        whole.append(alone.read_bytes())
    output = folder / "same.csv"
    both = [_score(source, output) for source in sources]
    succeeded = sum(one.wait() == 0 for one in both)
    return succeeded, output.read_bytes() in whole


def _left_by_signals(folder: Path, source: Path) -> int:
    """Return the files that are left by writers that were ended while they wrote."""
    before = set(folder.iterdir())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        writer = _score(source, folder / "ended.csv")
        while set(folder.iterdir()) == before and writer.poll() is None:
            time.sleep(0.001)
        writer.send_signal(number)
        writer.wait()
    return len(list(folder.glob(".*")))  # one that was whole by then is no remainder


def _empty_hosts() -> tuple[int, int]:
    """Return how many services with an empty host refused to start, and said why."""
    refused = said = 0
    for frontends in ("0", "2"):
        done = subprocess.run(
            [*SERVE, "--port", "0", "--frontends", frontends],
            env=os.environ | {"LOSS_SCORING_HOST": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        refused += done.returncode == 2
        said += "LOSS_SCORING_HOST" in done.stderr
    return refused, said


def run(rows: int = 3_000_000) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [folder / "a.parquet", folder / "b.parquet"]
        for source, length in zip(sources, (3, 5), strict=True):
            _write(source, rows, length)
        succeeded, whole = _two_writers(folder, sources)
        left = _left_by_signals(folder, sources[0])
        limits = (FULL, FULL)
        full = _score(
            sources[0],
            folder / "full.csv",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        )
        told = full.communicate()[1]
        left += len([*folder.glob(".*"), *folder.glob("full.csv")])
        strange = folder / "strange.parquet"
        pq.write_table(pa.table({"unique_id": [STRANGE], "y": [1.0], STRANGE: [2.0]}), strange)
        shown = subprocess.run(
            [LOSS_SCORING, "score", strange], capture_output=True, text=True, check=False
        )
    printed = (shown.stdout + shown.stderr).replace("\n", "")
    unprintable = sum(not character.isprintable() for character in printed)
    refused, said = _empty_hosts()
    return [
        at_least("writers of one output that succeeded, of 2", succeeded, 2),
        at_least("and the output is one of the two, whole", whole, 1),
        at_most("files left by writers that a signal or a full disk ended", left, 0),
        at_least("a full disk is said of the output", f"{folder}/full.csv: " in told, 1),
        at_most("stack traces of a full disk", told.count("Traceback"), 0),
        at_least("strange names scored", shown.returncode == 0, 1),
        at_most("characters of strange names that move a cursor", unprintable, 0),
        at_least("services with an empty host that were refused, of 2", refused, 2),
        at_least("and said which variable is empty", said, 2),
    ]

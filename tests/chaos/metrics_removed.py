"""Metrics of several processes go on when somebody removes their directory, as cleaners of /tmp do.

It fails when a scrape is answered 500, or forgets what was counted before or after.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

import httpx
from finding import Finding, at_least, at_most
from instance import Instance, instance
from traffic import ask_once, play, post, tagged

_EACH = 40
_PUBLISHED_S = 3
"""Every second each process does, if it is not starved."""


def _folders(folder: Path) -> list[Path]:
    return list(folder.glob("loss-scoring-metrics-*"))


async def _removed(running: Instance, folder: Path) -> tuple[int, float, float]:
    failed, requests = 0, post(tagged(1.0))
    for _ in range(3):
        for _ in range(_EACH):
            failed += (await ask_once(running, requests)).status != 200
        await asyncio.sleep(_PUBLISHED_S)
        for path in _folders(folder):
            shutil.rmtree(path)
        failed += (await asyncio.to_thread(httpx.get, f"{running.url}/metrics")).status_code != 200
    await asyncio.sleep(_PUBLISHED_S)
    connections = await asyncio.to_thread(running.metric, "loss_scoring_connections_total")
    (made,) = _folders(folder)
    return failed, connections, made.stat().st_mode & 0o77


def run() -> list[Finding]:
    with (
        tempfile.TemporaryDirectory() as name,
        instance(frontends=2, environment={"TMPDIR": name}) as running,
    ):
        failed, connections, open_to = play(_removed(running, Path(name)))
    return [
        at_most("requests and scrapes that fail while the files are removed", failed, 0),
        at_least("connections counted, files being removed three times", connections, 3 * _EACH),
        at_most("others who can enter the directory then", open_to, 0),
    ]

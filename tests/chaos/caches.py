"""A damaged cache of compiled code costs a start the time to compile, and is replaced.

A first service fills a cache; then an index is emptied and a file of machine code cut off, as by a
node that loses power. It fails when what cannot be read ends the start, or is compiled at each.
"""

import os
import tempfile
from pathlib import Path

from finding import Finding, at_least, at_most
from instance import Instance, instance
from traffic import ask_once, play, post, tagged


def _answers(running: Instance) -> bool:
    return play(ask_once(running, post(tagged(1.0)))).status == 200


def run() -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {"NUMBA_CACHE_DIR": folder}
        with instance(environment=environment):
            pass
        index, *_ = sorted(Path(folder).rglob("*read_series*.nbi"))
        code, *_ = sorted(Path(folder).rglob("*sweep*.nbc"))
        os.truncate(index, 0)
        os.truncate(code, code.stat().st_size // 2)
        with instance(environment=environment) as running:
            answers, log = _answers(running), running.log_text()
        with instance(environment=environment) as running:
            again = running.log_text().count("compiling again")
    return [
        at_least("answers of a service whose cache is damaged", answers, 1),
        at_least("damaged caches named in its log, of 2", log.count(f"the cache {folder}"), 2),
        at_most("damaged caches at the next start", again, 0),
    ]

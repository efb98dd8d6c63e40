"""Schemathesis, with all its checks, finds nothing that /openapi.json does not say.

It makes requests that the document allows and requests that it forbids, for every route. It fails
when an answer has a status, a type or a shape that is not documented, when a valid request is
refused or an invalid one accepted, and at every 5xx. ``schema_hooks`` tells it what OpenAPI
cannot say.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from finding import Finding, at_least, at_most
from instance import instance
from mutated_arrow import originals

HERE = Path(__file__).resolve().parent
ST = HERE.parents[1] / ".venv-schemathesis/bin/schemathesis"


def run(examples: int = 300) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name, instance() as running:
        folder = Path(name)
        streams = folder / "streams"
        streams.mkdir()
        for n, body in enumerate(originals()):
            (streams / str(n)).write_bytes(body)
        report = folder / "report.json"
        ran = subprocess.run(
            [
                ST, "--config-file", HERE / "schemathesis.toml",
                "run", f"{running.url}/openapi.json", "--checks", "all", "--warnings", "off",
                "--max-examples", str(examples), "--seed", "1", "--no-shrink",
                "--continue-on-failure", "--report-json-path", report,
            ],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            | {"CHAOS_STREAMS": str(streams), "SCHEMATHESIS_HOOKS": str(HERE / "schema_hooks.py")},
            cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        print(ran.stdout[-6000:], ran.stderr[-2000:])
        document = json.loads(report.read_text())
        alive, log = running.alive, running.log_text()
    cases = document["test_cases"]
    return [
        at_most(
            f"kinds of failure in {cases['generated']} generated requests, all checks",
            cases["unique_failures"] + cases["errored"] + ran.returncode,
            0,
        ),
        at_least("routes tested, of 9", document["operations"]["tested"], 9),
        at_most("unexpected errors in the log", log.count("unexpected error") + (not alive), 0),
    ]

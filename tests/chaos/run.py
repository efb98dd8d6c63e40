"""Runs every scenario and writes the scorecard into docs/reliability.md.

python tests/chaos/run.py [--soak-s 1200] [--only cross_talk ...]
"""

import argparse
import importlib
import os
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = [ROOT, *(ROOT / part for part in ("tests", "tests/http", "tests/chaos", "tests/fuzz"))]
sys.path[:0] = map(str, FOLDERS)
os.environ["PYTHONPATH"] = str(ROOT)  # the services under test are of this tree

from finding import Finding, at_least  # noqa: E402

# Put scenarios that kill or stop a separate worker process here, beside failing_device.
SCENARIOS = {
    "chaos/cross_talk": "Nobody gets another's answer",
    "chaos/abandoned": "Nobody's work is not done",
    "chaos/deadlines": "Deadlines are kept",
    "chaos/overload_device": "Overload, the device being the limit",
    "chaos/overload": "Overload, the processor being the limit",
    "chaos/newcomers": "New connections beside busy ones",
    "chaos/open_bodies": "Memory is bounded",
    "chaos/beside_huge": "Small clients beside a huge one",
    "chaos/failing_device": "A failing device",
    "chaos/slow_sockets": "Slow clients",
    "chaos/descriptors": "No descriptors left",
    "chaos/draining": "Stopping",
    "chaos/rolling": "Rolling restart",
    "fuzz/mutated_arrow": "Damaged Arrow",
    "fuzz/mutated_json": "Damaged JSON",
    "fuzz/hostile_http": "Hostile HTTP",
    "fuzz/endless_head": "A head without end",
    "fuzz/schema": "The OpenAPI document is true",
    "chaos/soak": "Nothing grows",
}
HEAD = """\
# Reliability

What the service promises when things go wrong, and the test that keeps each promise. `make chaos`
runs them against a real `loss-scoring serve` over sockets on 127.0.0.1 and rewrites this file;
`make test` runs a short selection (`tests/chaos/test_chaos.py`, `tests/fuzz/test_fuzz.py`). Each
test says in its docstring what would make it fail. Workers, front ends and supervisors are killed, stopped and
drained under load in `tests/engine/test_frontends.py`, which all of `make test` runs: no request is
lost or wrong, a request that kills its worker twice gets 500 alone, and nothing is left behind.
"""

WHY = {
    "chaos/overload": "the load generator takes its part of the same processors, and so does reading "
    "the head of each refused request.",
}
"""What is known of a scenario that fails; printed below the table while it does."""


def machine() -> str:
    """As the benchmarks describe it."""
    return str(runpy.run_path(str(ROOT / "bench/run.py"))["machine"]())


def scored(name: str, soak_s: float) -> tuple[list[Finding], float]:
    module = importlib.import_module(name.rpartition("/")[2])
    started = time.perf_counter()
    try:
        findings = module.run(**({"seconds": soak_s} if name == "chaos/soak" else {}))
    except Exception:  # noqa: BLE001 - the scorecard says so, and the others still run
        traceback.print_exc()
        findings = [at_least("the scenario ran to its end", 0, 1)]
    return findings, time.perf_counter() - started


def table(rows: Sequence[tuple[str, Finding]]) -> list[str]:
    lines = ["| promise | test | measured | limit | verdict |", "| --- | --- | --- | --- | --- |"]
    for name, one in rows:
        verdict = "pass" if one.passed else "**FAIL**"
        lines.append(
            f"| {one.promise} | [{name}](../tests/{name}.py) | {one.measured_text} "
            f"| {one.limit_text} | {verdict} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--soak-s", type=float, default=1200)
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help="such as cross_talk; writes no file"
    )
    arguments = parser.parse_args()
    chosen = [
        name
        for name in SCENARIOS
        if not arguments.only or name.rpartition("/")[2] in arguments.only
    ]
    rows: list[tuple[str, Finding]] = []
    load = os.getloadavg()[0]
    started = time.perf_counter()
    for name in chosen:
        print(f"== {SCENARIOS[name]} ({name})", flush=True)
        findings, seconds = scored(name, arguments.soak_s)
        for one in findings:
            verdict = "pass" if one.passed else "FAIL"
            print(f"{verdict}  {one.promise}: {one.measured_text} ({one.limit_text})")
            rows.append((name, one))
        print(f"{seconds:.0f} s", flush=True)
    failed = sum(not one.passed for _, one in rows)
    summary = (
        f"Printed by `make chaos` on {datetime.now(UTC).date()} in "
        f"{(time.perf_counter() - started) / 60:.0f} minutes, a soak of "
        f"{arguments.soak_s / 60:.3g} minutes among them: {len(rows) - failed} of {len(rows)} "
        f"figures keep their promise, {failed} do not."
    )
    print(summary)
    if not arguments.only:
        where = f"{machine()} Load average at the start {load:.1f}: other work shares the machine."
        broken = {name for name, one in rows if not one.passed}
        reasons = [
            f"- {name}: {WHY.get(name, 'not yet known.')}" for name in SCENARIOS if name in broken
        ]
        failing = ["", "## What fails", "", *reasons] if reasons else []
        document = [HEAD, summary, "", where, "", *table(rows), *failing]
        (ROOT / "docs/reliability.md").write_text("\n".join(document) + "\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

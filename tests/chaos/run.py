"""Runs every scenario and writes the scorecard into bench/reliability.md.

python tests/chaos/run.py [--soak-s 1200] [--only cross_talk ...]
"""

import argparse
import importlib
import os
import runpy
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = [
    ROOT,
    *(ROOT / part for part in ("tests", "tests/api", "tests/server", "tests/chaos", "tests/fuzz")),
]
sys.path[:0] = map(str, FOLDERS)
os.environ["PYTHONPATH"] = str(ROOT)  # the services under test are of this tree

from finding import Finding, at_least  # noqa: E402


@dataclass(frozen=True)
class Scenario:
    """A module, and what its ``run`` is given."""

    name: str
    title: str
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def behind(self) -> str:
        """What a reader of the scorecard must know of it."""
        return f", {self.given['frontends']} front ends" if "frontends" in self.given else ""


BEHIND = {"frontends": 2}
SCENARIOS = [
    Scenario("chaos/cross_talk", "Nobody gets another's answer"),
    Scenario("chaos/cross_talk", "Nobody gets another's answer", BEHIND),
    Scenario("chaos/abandoned", "Nobody's work is not done"),
    Scenario("chaos/abandoned", "Nobody's work is not done", BEHIND),
    Scenario("chaos/deadlines", "Deadlines are kept"),
    Scenario("chaos/overload_device", "Overload, the device being the limit"),
    Scenario("chaos/overload", "Overload, the processor being the limit"),
    Scenario("chaos/newcomers", "New connections beside busy ones"),
    Scenario("chaos/open_bodies", "Memory is bounded"),
    Scenario("chaos/open_bodies", "Memory is bounded", BEHIND),
    Scenario("chaos/dear_bodies", "Names that answers repeat", {"kind": "names"}),
    Scenario("chaos/dear_bodies", "Batches without end", {"kind": "pieces"}),
    Scenario("chaos/dear_bodies", "Dictionaries that many share", {"kind": "dictionaries"}),
    Scenario("chaos/hostile_json", "JSON that costs more than it weighs"),
    Scenario("chaos/beside_huge", "Small clients beside a huge one"),
    Scenario("chaos/failing_device", "A failing device"),
    Scenario("chaos/failing_device", "A failing device", BEHIND),
    Scenario("chaos/worker_kills", "Workers that are killed"),
    Scenario("chaos/worker_stopped", "A worker that is stopped"),
    Scenario("chaos/paused", "A machine that is paused"),
    Scenario("chaos/paused", "A machine that is paused", BEHIND),
    Scenario("chaos/poison", "A request that kills its worker"),
    Scenario("chaos/frontend_kills", "Front ends that are killed"),
    Scenario("chaos/slow_sockets", "Slow clients"),
    Scenario("chaos/descriptors", "No descriptors left"),
    Scenario("chaos/descriptors", "No descriptors left", BEHIND),
    Scenario("chaos/shortages", "No memory, no threads"),
    Scenario("chaos/draining", "Stopping"),
    Scenario("chaos/stuck", "Stopping while a thread cannot"),
    Scenario("chaos/stuck", "Stopping while a thread cannot", BEHIND),
    Scenario("chaos/caches", "Damaged caches"),
    Scenario("chaos/metrics_removed", "Metrics whose files are removed"),
    Scenario("chaos/rolling", "Rolling restart"),
    Scenario("chaos/hostile_answers", "A server that is hostile to its client"),
    Scenario("chaos/command_line", "The command line among others"),
    Scenario("fuzz/mutated_arrow", "Damaged Arrow"),
    Scenario("fuzz/mutated_json", "Damaged JSON"),
    Scenario("fuzz/hostile_http", "Hostile HTTP"),
    Scenario("fuzz/cheap_bytes", "Cheap bytes"),
    Scenario("fuzz/endless_head", "A head without end"),
    Scenario("fuzz/pipelined_flood", "Requests without end"),
    Scenario("fuzz/schema", "The OpenAPI document is true"),
    Scenario("chaos/soak", "Nothing grows"),
    Scenario("chaos/soak", "Nothing grows", {**BEHIND, "seconds": 180}),
]
HEAD = """\
# Reliability

How well the last run kept [what the service promises](../docs/limits.md) when things go wrong.
`make chaos` runs each test against a real `loss-scoring serve` over sockets on 127.0.0.1 and
rewrites this file; `make test` runs a short selection (`tests/chaos/test_chaos.py`,
`tests/fuzz/test_fuzz.py`, behind front ends `tests/processes/test_frontends.py`). Each test says in its
docstring what would make it fail.
"""

WHY = {
    "chaos/overload": "to serve a request costs the one processor 1.9 ms, to refuse one 0.1 ms where "
    "nothing else runs but 0.2 ms beside threads that decode and encode, which share its caches: its head "
    "is read, and its 80 KB of body are received and thrown away so that the connection can stay. Two of "
    "three are refused at three times the load. For 90 % a refusal may cost 0.1 ms.",
}
"""What is known of a scenario that fails; printed below the table while it does."""


def machine() -> str:
    """As the benchmarks describe it."""
    return str(runpy.run_path(str(ROOT / "bench/run.py"))["machine"]())


def scored(one: Scenario, soak_s: float) -> tuple[list[Finding], float]:
    module = importlib.import_module(one.name.rpartition("/")[2])
    given = dict(one.given)
    if one.name == "chaos/soak":
        given["seconds"] = min(soak_s, given.get("seconds", soak_s))
    started = time.perf_counter()
    try:
        findings = module.run(**given)
    except Exception:  # noqa: BLE001 - the scorecard says so, and the others still run
        traceback.print_exc()
        findings = [at_least("the scenario ran to its end", 0, 1)]
    return findings, time.perf_counter() - started


def table(rows: Sequence[tuple[Scenario, Finding]]) -> list[str]:
    lines = ["| promise | test | measured | limit | verdict |", "| --- | --- | --- | --- | --- |"]
    for scenario, one in rows:
        verdict, name = "pass" if one.passed else "**FAIL**", scenario.name
        lines.append(
            f"| {one.promise} | [{name}](../tests/{name}.py){scenario.behind} | {one.measured_text} "
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
        one
        for one in SCENARIOS
        if not arguments.only or one.name.rpartition("/")[2] in arguments.only
    ]
    rows: list[tuple[Scenario, Finding]] = []
    load = os.getloadavg()[0]
    started = time.perf_counter()
    for scenario in chosen:
        print(f"== {scenario.title} ({scenario.name}{scenario.behind})", flush=True)
        findings, seconds = scored(scenario, arguments.soak_s)
        for one in findings:
            verdict = "pass" if one.passed else "FAIL"
            print(f"{verdict}  {one.promise}: {one.measured_text} ({one.limit_text})")
            rows.append((scenario, one))
        print(f"{seconds:.0f} s", flush=True)
    failed = sum(not one.passed for _, one in rows)
    summary = (
        f"Printed by `make chaos` on {datetime.now(UTC).date()} in "
        f"{(time.perf_counter() - started) / 60:.0f} minutes, a soak of "
        f"{arguments.soak_s / 60:.3g} minutes among them: {len(rows) - failed} of {len(rows)} "
        f"figures keep their promise, {failed} {'does' if failed == 1 else 'do'} not."
    )
    print(summary)
    if not arguments.only:
        where = f"{machine()} Load average at the start {load:.1f}: other work shares the machine."
        broken = {scenario.name for scenario, one in rows if not one.passed}
        reasons = [f"- {name}: {WHY.get(name, 'not yet known.')}" for name in sorted(broken)]
        failing = ["", "## What fails", "", *reasons] if reasons else []
        document = [HEAD, summary, "", where, "", *table(rows), *failing]
        (ROOT / "bench/reliability.md").write_text("\n".join(document) + "\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

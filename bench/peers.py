"""The service against what a team would deploy instead: the same series, over HTTP.

Each peer (bench/peers/*_app.py) is the service that a competent engineer writes with that framework
in an afternoon: its own batching where that helps, a scoring function vectorised in torch, two
workers on two cores, no access log. One is tuned by hand for this task instead, one process that
takes Arrow as well (bench/peers/tuned_app.py). Each runs in an environment of its own,
.venv-peer-NAME, made here with the dependency group peer-NAME of pyproject.toml. Before it is
timed, its answers are compared with ours (relative 1e-6); who answers wrongly is not timed.

One server runs at a time: without any request LitServe keeps 27 % of a core busy and Ray Serve 11 %
(the others less than 1 %), which would be taken from whoever is measured. In each repeat every
server is started, checked, warmed up, measured and ended, in rotating order, and ratios are taken
within a repeat.

    python bench/peers.py [--repeats 3] [--only NAME ...]
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import picture
import pyarrow as pa
from http_paths import ARROW, JSON, free_port
from load import Client, Latencies, Load
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from run import machine

HERE = Path(__file__).parent
ROOT = HERE.parent
LOSSES = ["mae", "mape", "smape"]
OURS, AS_ARROW = "ours", ", Arrow"
INSTALL_S, START_S, ANSWER_S, WARM_UP_S = 600, 120, 60, 0.5

INTRODUCTION = """# Against what a team would deploy instead

Printed by `make bench-peers` on {date}: medians of {repeats} repeats, least and most in brackets.
A ratio is our requests per second over theirs in the same repeat and format: above 1 we answer
more. Server and client share the machine, so read the ratios. p99 of a few slow requests is their
slowest. Everybody was asked for MAE, MAPE and sMAPE in float64 and answered with the same numbers
before being timed; peers leave out the ids, the lengths, the counts of masked elements, the
distinction of missing values and most of the checks. A peer that did not run says why.

{machine}
Busy with other work before a server was started: {busy} %.
"""
Request = dict[str, object]
Answer = dict[str, dict[str, list]]


def as_it_is(request: Request) -> bytes:
    return json.dumps(request).encode()


def as_tensors(request: Request) -> bytes:
    series = request["series"]
    lengths = [len(one["target"]) for one in series]
    inputs = [
        {"name": "lengths", "shape": [len(series)], "datatype": "INT64", "data": lengths},
    ]
    for side in ("prediction", "target"):
        padded = [x for one in series for x in one[side] + [0.0] * (max(lengths) - len(one[side]))]
        shape = [len(series), max(lengths)]
        inputs.append({"name": side, "shape": shape, "datatype": "FP64", "data": padded})
    outputs = list(request["losses"])
    if request["gradients"]:
        outputs += [f"{name}.gradient" for name in request["losses"]]
    return json.dumps({"inputs": inputs, "outputs": [{"name": name} for name in outputs]}).encode()


def from_tensors(request: Request, body: bytes) -> Answer:
    answer: Answer = {"losses": {}, "gradients": {}}
    for output in json.loads(body)["outputs"]:
        name, _, gradient = output["name"].partition(".")
        if gradient:
            rows = np.reshape(output["data"], output["shape"])
            series = request["series"]
            answer["gradients"][name] = [
                row[: len(one["target"])] for row, one in zip(rows, series, strict=True)
            ]
        else:
            answer["losses"][name] = output["data"]
    return answer


def mlserver_folder(folder: Path, port: int) -> None:
    settings = {
        "debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(),
        "metrics_endpoint": None, "parallel_workers": 2, "gzip_enabled": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    batches = {"max_batch_size": 32, "max_batch_time": 0.002}
    for name, options in {"scoring": {}, "batched": batches}.items():
        model = {"name": name, "implementation": "mlserver_app.Scoring", **options}
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_text(json.dumps(model))


@dataclass(frozen=True)
class Peer:
    """A service to measure.

    Attributes:
        name: Its environment is .venv-peer-NAME.
        title: What the tables call it.
        how: What stands between a request and the scoring function, in words.
        command: A program of its environment and arguments; {port} and {folder} are filled in.
        path: Where it takes requests.
        small_path: Where it takes small ones, if somewhere else.
        takes_arrow: Whether it takes the same as Arrow, too.
        write: Makes a body of a request.
        read: Reads an answer.
        prepare: Writes files into the folder in which the server will run.
    """

    name: str
    title: str
    how: str
    command: tuple[str, ...]
    path: str = "/score"
    write: Callable[[Request], bytes] = as_it_is
    read: Callable[[Request, bytes], Answer] = lambda _, body: json.loads(body)
    small_path: str = ""
    takes_arrow: bool = False
    prepare: Callable[[Path, int], None] = lambda *_: None

    @property
    def bin(self) -> Path:
        if self.name == OURS:
            return Path(sys.executable).parent
        return ROOT / f".venv-peer-{self.name}" / "bin"


PEERS = (
    Peer(
        OURS, "ours", "one process",
        ("loss-scoring", "serve", "--port", "{port}", "--log-level", "warning"),
        takes_arrow=True,
    ),
    Peer(
        "tuned", "tuned FastAPI", "orjson or Arrow, numpy over all series at once, one process",
        ("uvicorn", "tuned_app:app", "--port", "{port}", "--loop", "uvloop", "--http", "httptools",
         "--no-access-log", "--log-level", "warning"),
        takes_arrow=True,
    ),
    Peer(
        "naive", "naive FastAPI", "pydantic body, autograd series by series, 2 workers",
        ("uvicorn", "naive_app:app", "--port", "{port}", "--workers", "2", "--no-access-log",
         "--log-level", "warning"),
    ),
    Peer(
        "litserve", "LitServe", "2 API servers, 2 workers, batches of up to 32",
        ("python", str(HERE / "peers" / "litserve_app.py"), "--port", "{port}"),
    ),
    Peer(
        "bentoml", "BentoML", "2 workers, no batching",
        ("bentoml", "serve", "bentoml_app:Scoring", "--host", "127.0.0.1", "--port", "{port}",
         "--working-dir", str(HERE / "peers")),
    ),
    Peer(
        "ray", "Ray Serve", "HTTP proxy, 2 replicas, batches of up to 32",
        ("python", str(HERE / "peers" / "ray_app.py"), "--port", "{port}"),
    ),
    Peer(
        "mlserver", "MLServer", "V2 protocol: padded tensors in JSON; 2 workers, batches for small",
        ("mlserver", "start", "{folder}"),
        path="/v2/models/scoring/infer", small_path="/v2/models/batched/infer",
        write=as_tensors, read=from_tensors, prepare=mlserver_folder,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A request that is sent over and over."""

    title: str
    series: int
    length: int
    connections: int
    seconds: float
    gradients: bool = False

    @property
    def small(self) -> bool:
        return self.series < 100

    def request(self) -> Request:
        p, y = np.random.default_rng(0).normal(100, 20, (2, self.series, self.length)).round(3)
        return ask(zip(p.tolist(), y.tolist(), strict=True), gradients=self.gradients)


WORKLOADS = (
    Workload("8 x 24, losses, 32 connections", 8, 24, 32, 1.5),
    Workload("1k x 96, losses, 4 connections", 1000, 96, 4, 1.5),
    Workload("1k x 96, losses and gradients, 4 connections", 1000, 96, 4, 2.0, gradients=True),
    Workload("10k x 96, losses, 1 connection", 10_000, 96, 1, 2.5),
)


def ask(sides: Iterator[tuple[list[float], list[float]]], *, gradients: bool) -> Request:
    series = [{"prediction": p, "target": y} for p, y in sides]
    return {"losses": LOSSES, "gradients": gradients, "series": series}


def awkward() -> Request:
    """Series of unequal length, zeros and ties among them."""
    rng = np.random.default_rng(1)
    both = [rng.integers(-2, 3, (2, length)).astype(float) for length in (1, 7, 24, 3)]
    return ask(((p.tolist(), y.tolist()) for p, y in both), gradients=True)


def arrow_load(url: str, request: Request) -> Load:
    """Return a request as Arrow."""
    table = pa.Table.from_pylist(request["series"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    query = f"?losses={','.join(request['losses'])}" + "&gradients=true" * request["gradients"]
    return Load(url + query, sink.getvalue().to_pybytes(), ARROW)


def read_arrow(body: bytes) -> Answer:
    with pa.ipc.open_stream(body) as reader:
        columns = reader.read_all().to_pydict()
    ends = {"losses": "", "gradients": "_gradient"}
    return {
        part: {name: columns[name + end] for name in LOSSES if name + end in columns}
        for part, end in ends.items()
    }


def last_error(text: str) -> str:
    """Return the last line of a log, or better of its last error, without this machine's paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing was logged"]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|ERROR", line)]
    last = (errors or lines)[-1]
    for path in (ROOT, Path.home(), Path(tempfile.gettempdir())):
        last = last.replace(str(path), "...")
    return re.sub(r"https?://\S+", "...", last)[:200]


def wanted(peer: Peer) -> list[str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    own = groups[f"peer-{peer.name}"]
    base = groups["peer-base"] if {"include-group": "peer-base"} in own else []
    return [*(one for one in own if isinstance(one, str)), *base]


def install(peer: Peer) -> None:
    """Make a peer's environment, unless it holds what its dependency group asks for."""
    folder = peer.bin.parent
    stamp = folder / ".installed"
    asked = repr(wanted(peer))
    if stamp.exists() and stamp.read_text() == asked:
        return
    print(f"installing {peer.title}", file=sys.stderr)
    pip = [str(peer.bin / "pip"), "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--upgrade", "pip>=25.1"],
        [*pip, "--group", f"peer-{peer.name}"],
    ):
        done = subprocess.run(
            command, cwd=ROOT, check=False, timeout=INSTALL_S, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise RuntimeError(f"was not installed: {last_error(done.stderr)}")
    stamp.write_text(asked)


def environment(folder: Path) -> dict[str, str]:
    quiet = {
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder),
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "PYTHONPATH": str(HERE / "peers"),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return {**os.environ, **quiet}


def family(pid: int) -> dict[int, str]:
    """Return a process and its descendants, with the time at which each was started."""
    parents, started = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)], started[int(entry.name)] = int(fields[1]), fields[19]
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return {member: started[member] for member in members if member in started}


def end(running: subprocess.Popen[bytes]) -> None:
    """Ask a server to end; then end what is left of the processes that it started."""
    members = family(running.pid)
    running.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    for pid, started in members.items():
        if family(pid).get(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - 127.0.0.1
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
        return bytes(answer.read())


@contextlib.contextmanager
def server(peer: Peer) -> Iterator[str]:
    """Run a server until it scores; end it and all that it started."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        peer.prepare(folder, port)
        program, *rest = (part.format(port=port, folder=folder) for part in peer.command)
        log = folder / "server.log"
        with log.open("wb") as output:
            running = subprocess.Popen(
                [str(peer.bin / program), *rest], cwd=folder, stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
                env=dict(os.environ) if peer.name == OURS else environment(folder),
            )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        body, deadline = peer.write(awkward()), time.monotonic() + START_S
        try:
            while True:
                with contextlib.suppress(OSError):
                    post(url + peer.path, body, JSON)
                    break
                if running.poll() is not None or time.monotonic() > deadline:
                    why = last_error(log.read_text(errors="replace"))
                    raise RuntimeError(f"did not score within {START_S} s: {why}")
                time.sleep(0.2)
            yield url
        finally:
            end(running)


def check(request: Request, answer: Answer, expected: Answer) -> None:
    """Refuse an answer with other numbers than expected."""
    for part in ("losses", "gradients") if request["gradients"] else ("losses",):
        for name in LOSSES:
            mine, theirs = expected[part][name], answer[part][name]
            if part == "losses":
                mine, theirs = [mine], [theirs]
            for a, b in zip(mine, theirs, strict=True):
                if not np.allclose(b, a, rtol=1e-6, atol=0):
                    raise RuntimeError(f"answers other {part} of {name} than ours")


def busy() -> float:
    """Return the share of the CPUs that is busy with something else; wait a little for less."""
    for _ in range(4):
        before, after = (clock() for _ in range(2))
        share = 1 - (after[1] - before[1]) / (after[0] - before[0])
        if share < 0.1:
            break
    return share


def clock() -> tuple[int, int]:
    """Return the ticks of all CPUs and the idle ones among them, half a second later."""
    time.sleep(0.5)
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


@dataclass
class Seen:
    """What a row of a table saw, a run a repeat; or why it saw nothing."""

    runs: dict[int, Latencies] = field(default_factory=dict)
    reason: str = ""


class Comparison:
    """Visits the servers in turn and keeps what they did."""

    def __init__(self) -> None:
        self.client = Client(1)
        self.requests = {"": awkward(), **{one.title: one.request() for one in WORKLOADS}}
        self.expected: dict[str, Answer] = {}
        self.rows: dict[str, dict[str, Seen]] = {one.title: {} for one in WORKLOADS}
        self.busy: list[float] = []

    def timed(self, row: str, workload: Workload, load: Load, repeat: int) -> None:
        seen = self.rows[workload.title].setdefault(row, Seen())
        if seen.reason:
            return
        load = replace(load, connections=workload.connections, seconds=workload.seconds)
        try:
            self.client.run(replace(load, seconds=WARM_UP_S))
            seen.runs[repeat] = self.client.run(load)
        except (RuntimeError, OSError) as error:
            seen.reason = (str(error) or type(error).__name__).splitlines()[0]

    def visit(self, peer: Peer, repeat: int) -> None:
        self.busy.append(busy())
        with server(peer) as url:
            for title, request in self.requests.items():
                answers = [peer.read(request, post(url + peer.path, peer.write(request), JSON))]
                if peer.takes_arrow:
                    load = arrow_load(url + peer.path, request)
                    answers.append(read_arrow(post(load.url, load.body, ARROW)))
                if peer.name == OURS:
                    self.expected.setdefault(title, answers[0])
                for answer in answers:
                    check(request, answer, self.expected[title])
            for workload in WORKLOADS:
                request = self.requests[workload.title]
                path = (peer.small_path if workload.small else "") or peer.path
                load = Load(url + path, peer.write(request), JSON)
                self.timed(peer.title, workload, load, repeat)
                if peer.takes_arrow:
                    load = arrow_load(url + path, request)
                    self.timed(peer.title + AS_ARROW, workload, load, repeat)

    def run(self, peers: list[Peer], repeats: int) -> None:
        failed: set[str] = set()
        for repeat in range(repeats):
            # Ours first in the first repeat, since the others are checked against it.
            turn = repeat % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                if peer.name in failed:
                    continue
                print(f"repeat {repeat + 1} of {repeats}: {peer.title}", file=sys.stderr)
                try:
                    if peer.name != OURS:
                        install(peer)
                    self.visit(peer, repeat)
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    if peer.name == OURS:
                        raise
                    failed.add(peer.name)
                    for rows in self.rows.values():
                        rows.setdefault(peer.title, Seen()).reason = str(error)

    def tables(self) -> Iterator[Table]:
        for workload in WORKLOADS:
            size = len(as_it_is(self.requests[workload.title])) / 1e6
            table = Table(
                "service", "requests /s", "p50 ms", "p99 ms", "ours / it",
                title=f"{workload.title} ({size:.2g} MB of JSON)",
            )  # fmt: skip
            rows = self.rows[workload.title]
            for title, seen in rows.items():
                ours = rows[PEERS[0].title + AS_ARROW * title.endswith(AS_ARROW)].runs
                if seen.runs:
                    runs = seen.runs.values()
                    table.add_row(
                        title,
                        spread(run.rate for run in runs),
                        spread(run.median * 1e3 for run in runs),
                        spread(run.quantile(0.99) * 1e3 for run in runs),
                        spread(
                            ours[repeat].rate / run.rate
                            for repeat, run in seen.runs.items()
                            if repeat in ours
                        ),
                    )
                if seen.reason:
                    table.add_row(title, escape(seen.reason))
            yield table


def spread(values: Iterable[float]) -> str:
    """Show the median, the least and the most."""
    seen = sorted(values)
    return " ".join(
        (show(statistics.median(seen)), f"({show(seen[0])}-{show(seen[-1])})") if seen else ()
    )


def show(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def services(peers: list[Peer]) -> Table:
    table = Table("service", "release", "what answers")
    for peer in peers:
        release = "" if peer.name == OURS else wanted(peer)[0]
        table.add_row(peer.title, release, peer.how)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS[1:]])
    arguments = parser.parse_args()
    peers = [p for p in PEERS if arguments.only is None or p.name in (OURS, *arguments.only)]
    comparison = Comparison()
    comparison.run(peers, arguments.repeats)
    comparison.client.close()
    console = Console(width=120, record=True)
    for table in (services(peers), *comparison.tables()):
        console.print(table)
        console.print()
    shares = comparison.busy
    print(f"Busy with other work before a start: {spread(100 * x for x in shares)} %.")
    if arguments.only:
        return
    text = INTRODUCTION.format(
        date=datetime.now(UTC).date(),
        repeats=arguments.repeats,
        busy=spread(100 * share for share in shares),
        machine=machine(),
    )
    tables = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    (HERE / "peers.md").write_text(f"{text}\n```\n{tables.strip()}\n```\n")
    picture.draw()


if __name__ == "__main__":
    main()

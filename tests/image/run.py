"""``make image-test``: build the image, and try what an orchestrator and a user will ask of it.

Needs buildah, podman, runc and debootstrap (``apt-get install`` has them), and root. Prints each
check and what was measured; ends with 1 if one failed.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from build import ROOT, base_image, build, output
from container import CONFINED, PODMAN, Container, container
from forecasts import nested

from loss_scoring.core import Ragged, score

MEMORY = "2g"
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
EXAMPLE = ROOT / "examples/data/request.json"
CHECKS: list[Callable[[Container], Iterator[str]]] = []


def check(function):
    """Add a check: it raises, or yields what it found."""
    CHECKS.append(function)
    return function


def known(elements):
    """Return the numbers of a series with NaN for null."""
    return np.array(elements, dtype=np.float64)


def stream(table):
    """Return an Arrow stream of a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@check
def it_scores_an_example_in_json(service):
    request = json.loads(EXAMPLE.read_text())
    answer = httpx.post(f"{service.url}/score", json=request, timeout=60).raise_for_status().json()
    sides = [
        Ragged.from_series([torch.tensor(known(series[side])) for series in request["series"]])
        for side in ("prediction", "target")
    ]
    expected = score(*sides, request["losses"], gradients=True, missing=request["missing"])
    for name, values in expected.values.items():
        np.testing.assert_allclose(answer["losses"][name], values.numpy(), rtol=1e-14)
    for name, slopes in expected.gradients.items():
        assert np.concatenate(answer["gradients"][name]).tolist() == slopes.tolist()
    yield f"{len(request['series'])} series, as core scores them"


@check
def it_scores_real_forecasts_in_arrow(service):
    url = f"{service.url}/score?gradients=true&missing=skip"
    sent = nested()
    body = stream(sent)
    answer = httpx.post(url, content=body, headers=ARROW, timeout=60).raise_for_status()
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.num_rows == sent.num_rows
    lengths = pc.list_value_length(sent["prediction"])
    assert pc.list_value_length(table["mae_gradient"]).equals(lengths)
    timing = answer.headers["Server-Timing"]
    yield f"{table.num_rows} series with gradients; {timing}"


@check
def it_compiles_nothing(service):
    log = service.log()
    assert "[cache] data loaded" in log, "numba does not tell of its cache"
    assert "[cache] data saved" not in log
    assert not service.inside("find", "/tmp", "-name", "*.nb?")
    yield f"{log.count('[cache] data loaded')} functions came from the image's cache"


@check
def it_is_confined(service):
    script = "import os; print(os.getuid(), os.getgid(), os.getpid())"
    assert service.inside("python3", "-c", script).split()[:2] == ["10001", "10001"]
    status = service.inside("cat", "/proc/1/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status, status
    try:
        service.inside("touch", "/opt/venv/here")
    except RuntimeError as error:
        assert "Read-only" in str(error)  # noqa: PT017 - a script, not pytest
    else:
        raise AssertionError("the root file system can be written")
    yield "user 10001, no capabilities, nothing can be written but /tmp"


@check
def it_has_no_build_tools(service):
    tools = "import shutil; print([t for t in ('gcc', 'cc', 'curl', 'git') if shutil.which(t)])"
    assert service.inside("python3", "-c", tools) == "[]"
    wheel = "import importlib.util as i; print([m for m in ('pip', 'hatchling') if i.find_spec(m)])"
    assert service.inside("/opt/venv/bin/python", "-c", wheel) == "[]"
    yield "no compiler, no pip in its environment, no curl"


@check
def its_health_check_tells_ready_from_not(service):
    assert service.health() == 0
    elsewhere = [*PODMAN, "exec", "--env", "LOSS_SCORING_PORT=1", service.name]
    done = subprocess.run(
        [*elsewhere, "python3", "-m", "loss_scoring.service.health"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    yield "0 where it is ready, 1 where nothing answers"


@check
def it_answers_what_it_accepted_when_told_to_stop(service):
    series = 200_000
    numbers = pa.array(np.random.default_rng(1).random(series * 10))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(series + 1, dtype=np.int32) * 10), numbers)
    body = stream(pa.table({"prediction": lists, "target": lists}))

    def slowly():
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]
            time.sleep(0.05)

    def post():
        headers = ARROW | {"Content-Length": str(len(body))}
        with httpx.Client(timeout=60) as client:
            return client.post(f"{service.url}/score", content=slowly(), headers=headers)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(post)
        time.sleep(0.5)  # amid the body
        stopping = pool.submit(service.stop)
        code, seconds = stopping.result()
        rows = pa.ipc.open_stream(answer.result().raise_for_status().content).read_all().num_rows
    assert rows == series
    assert code == 0
    yield f"SIGTERM amid a body of {len(body) >> 20} MiB: answered, then exit status 0 in {seconds:.1f} s"


def try_one(image: str, **settings: object) -> int:
    """Run all checks on one container; returns how many failed."""
    failed = 0
    with container(image, MEMORY, NUMBA_DEBUG_CACHE=1, **settings) as service:
        print(f"  ready after {service.ready_s:.1f} s, with {MEMORY} of memory", flush=True)
        for each in CHECKS:
            title = each.__name__.replace("_", " ")
            if each is CHECKS[-1]:
                print(f"  most memory so far: {service.peak_mb():.0f} MB")
            try:
                for found in each(service):
                    print(f"  ok    {title}: {found}", flush=True)
            except Exception:
                failed += 1
                print(f"  FAIL  {title}\n{traceback.format_exc(limit=3)}", flush=True)
        if failed:
            lines = service.log().splitlines()
            print("\n".join(line for line in lines[-400:] if not line.startswith("[cache]")))
    return failed


def alone(image: str, *options: object, entry: str = "python3", arguments: Sequence[str]) -> str:
    """Run one command in a container of its own; returns what it prints."""
    return output(
        *PODMAN, "run", "--rm", *CONFINED, *options, "--entrypoint", entry, image, *arguments
    )


def try_another_processor(image: str) -> int:
    """Look up the kernels where the builder's processor cannot be known; returns what failed."""
    script = (
        "import numba.core.codegen as codegen\n"
        "def host(): raise AssertionError('what was compiled depends on the builder')\n"
        "codegen.get_host_cpu_features = codegen.ll.get_host_cpu_name = host\n"
        "from loss_scoring.core import ScoreOptions, warm_up\n"
        "from loss_scoring.core.kernels.fused_cpu import Plan\n"
        "warm_up('cpu'); loop = Plan(ScoreOptions(), weighted=False).loops[0]\n"
        "sweeps = [loop.sweep(size, slopes, False) for size in (4, 8) for slopes in (False, True)]\n"
        "count = lambda kind: sum(sum(getattr(s.stats, kind).values()) for s in sweeps)\n"
        "print(count('cache_hits'), count('cache_misses'))\n"
    )
    try:
        hits, misses = map(int, alone(image, arguments=["-c", script]).split())
    except RuntimeError as error:
        hits = misses = 0
        print(error)
    good = hits and not misses
    print(f"  {'ok  ' if good else 'FAIL'}  {hits} kernels for whatever processor, {misses} missed")
    return int(not good)


def try_cuda(image: str) -> int:
    """Look up what CUDA needs in the image's cache; returns how much of it failed.

    There is no GPU: the driver's library is an empty one, and nothing is launched.
    """
    script = (
        "import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n"
        "from loss_scoring.core.kernels.ahead import CAPABILITIES, CudaUtils, compile_tiles\n"
        "CudaUtils()\n"
        "for capability in CAPABILITIES: compile_tiles(capability)\n"
        "print(len(CAPABILITIES), sum(len(files) for *_, files in os.walk('/tmp/triton')))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        library = Path(folder, "libcuda.so.1")
        output("cc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", library, "-x", "c", os.devnull)
        driver = ["--volume", f"{folder}:/driver:ro", "--env", "TRITON_LIBCUDA_PATH=/driver"]
        driver += ["--env", "LD_LIBRARY_PATH=/driver"]
        try:
            found = alone(image, *driver, arguments=["-c", script])
        except RuntimeError as error:
            print(f"  FAIL  it has launcher and kernels for CUDA\n{error}")
            return 1
    gpus, written = found.split()
    print(f"  {'ok  ' if written == '0' else 'FAIL'}  launcher and kernels for {gpus} kinds of GPU")
    return int(written != "0")


def describe(image: str) -> None:
    """Print the size of an image and what it is made of."""
    size = int(output("podman", "image", "inspect", "--format", "{{.Size}}", image))
    folders = ["/opt/venv/lib/python3.11/site-packages", "/opt/triton"]
    packages = alone(image, entry="du", arguments=["--block-size=1000000", "-d", "1", *folders])
    rows = sorted(
        (line.split("\t") for line in packages.splitlines()), key=lambda row: -int(row[0])
    )
    largest = ", ".join(f"{Path(path).name} {mb}" for mb, path in rows[1:11])
    print(f"  {size / 1e6:.0f} MB on disk; of it, in MB: {largest}", flush=True)


def main() -> None:
    """Build and try the variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=["cpu", "cuda"], action="append")
    parser.add_argument("--base-image", help="instead of a Debian made here")
    parser.add_argument("--torch-cpu-index", help="where pip finds torch for the CPU; may be empty")
    options = parser.parse_args()
    missing = [
        tool for tool in ("buildah", "debootstrap", "podman", "runc") if not shutil.which(tool)
    ]
    if missing:
        sys.exit(f"{', '.join(missing)} needed: apt-get install {' '.join(missing)}")
    failed = 0
    for variant in options.variant or ["cpu", "cuda"]:
        base = options.base_image or base_image()
        log = ROOT / ".run" / f"image-{variant}.log"
        log.parent.mkdir(exist_ok=True)
        print(f"{variant}: building (minutes; {log.relative_to(ROOT)} has the log)", flush=True)
        started = time.monotonic()
        image = build(variant, base, log, options.torch_cpu_index)
        print(f"  built in {time.monotonic() - started:.0f} s", flush=True)
        describe(image)
        failed += try_one(image)
        print("  behind two front ends:")
        failed += try_one(image, LOSS_SCORING_FRONTENDS=2)
        failed += try_another_processor(image)
        if variant == "cuda":
            failed += try_cuda(image)
    print("all passed" if not failed else f"{failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

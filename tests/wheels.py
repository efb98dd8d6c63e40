"""Build what a release uploads, check it, and use it as somebody does who has nothing else.

    .venv-release/bin/python tests/wheels.py [--pythons 3.11 3.12] [--keep FOLDER]

Both distributions are built from their sdists, and checked by twine and check-wheel-contents. Then,
for each Python that this machine has, the service and the client are installed from the wheels into
an environment each, outside the checkout: the service scores a file of real forecasts by itself and
is then asked for the same by the client. The answers of all Pythons must be the same bits. Needs no
package of the checkout, and brings torch once for each Python. Exits with 1 if anything fails, and says which
Pythons were not to be had.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = (ROOT / "VERSION").read_text().strip()
DISTRIBUTIONS = {"loss_scoring": ROOT, "lossclient": ROOT / "lossclient"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
START_S = 900
"""The first start compiles."""

CLIENT_JOB = """
import importlib.util, sys
import pyarrow.parquet as pq
import lossclient

assert importlib.util.find_spec("torch") is None
url, remote, scores, version = sys.argv[1:]
assert lossclient.__version__ == version, lossclient.__version__
with lossclient.Client(url, deadline_s=300) as client:
    assert client.score_series([[3.0, 1.0]], [[1.0, 2.0]]).losses["mae"].tolist() == [1.5]
answer, wanted = pq.read_table(remote), pq.read_table(scores)
keys = [(name, "ascending") for name in ("unique_id", "cutoff", "model")]
answer, wanted = (table.sort_by(keys).select(wanted.column_names) for table in (answer, wanted))
assert answer.to_pydict() == wanted.to_pydict(), "client and command line differ"
print(len(answer), "rows")
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a command outside the checkout; returns what it wrote."""
    options = {"cwd": tempfile.gettempdir(), "text": True, "stdout": subprocess.PIPE} | options
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOSS", "PYTHON"))}
    return subprocess.run(command, check=True, env=environment, **options).stdout  # type: ignore[call-overload]


def interpreters(wanted: list[str]) -> dict[str, Path | None]:
    """Return the interpreter of each version, None where the machine has none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found: dict[str, Path | None] = {}
    for version in wanted:
        on_path = shutil.which(f"python{version}")
        candidates = [
            *([Path(on_path)] if on_path else []),
            *versions.glob(f"{version}.*/bin/python3"),
        ]
        found[version] = next(filter(_can_make_environments, candidates), None)
    return found


def _can_make_environments(python: Path) -> bool:
    done = subprocess.run(
        [python, "-c", "import ensurepip, venv, ssl"], capture_output=True, check=False
    )
    return done.returncode == 0


def build(folder: Path) -> dict[str, Path]:
    """Build sdists, and wheels from them; returns the wheel of each distribution."""
    for source in DISTRIBUTIONS.values():
        run(sys.executable, "-m", "build", "--outdir", folder, source)
    files = sorted(folder.iterdir())
    wheels = {file.name.split("-")[0]: file for file in files if file.suffix == ".whl"}
    assert wheels.keys() == DISTRIBUTIONS.keys(), files
    assert all(f"-{VERSION}" in file.name for file in files), files
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    run(Path(sys.executable).with_name("check-wheel-contents"), *wheels.values())
    return wheels


def environment(python: Path, folder: Path, wheel: Path) -> Path:
    """Install a wheel and what it needs; returns the folder of its commands."""
    run(python, "-m", "venv", folder)
    pip = [folder / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    run(*pip, "check")
    return folder / "bin"


@contextlib.contextmanager
def serving(command: Path) -> Iterator[str]:
    """Run a service until the block ends; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [command, "serve", "--port", str(port)], cwd=tempfile.gettempdir()
    ) as service:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_S
            while not _is_ready(url):
                assert service.poll() is None, "the service ended"
                assert time.monotonic() < deadline, "the service is not ready"
                time.sleep(0.2)
            yield url
        finally:
            service.terminate()
        assert service.wait(60) == 0, "the service ended with an error"


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310 - of ours
            return answer.status == 200
    except OSError:
        return False


def main_job(python: Path, wheels: dict[str, Path], folder: Path) -> str:
    """Install and use both; returns what the command line printed of the losses of all series."""
    service = environment(python, folder / "service", wheels["loss_scoring"])
    client = environment(python, folder / "client", wheels["lossclient"])
    forecasts, scores = ROOT / "examples/data/forecasts.parquet", folder / "scores.parquet"
    assert run(service / "loss-scoring", "--version").strip() == f"loss-scoring {VERSION}"
    table = run(service / "loss-scoring", "score", forecasts, *("--missing", "skip"), "-o", scores)
    with serving(service / "loss-scoring") as url:
        with urllib.request.urlopen(f"{url}/version", timeout=60) as answer:  # noqa: S310 - of ours
            assert json.load(answer)["version"] == VERSION
        remote = folder / "remote.parquet"
        options = ["--url", url, "--missing", "skip", "--quiet", "-o", remote]
        run(client / "lossclient", "score", forecasts, *options)
        print(run(client / "python", "-c", CLIENT_JOB, url, remote, scores, VERSION).strip())
    return "\n".join(line for line in table.splitlines() if re.search(r"\d", line))


def main() -> int:
    """Print a line a Python; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", nargs="+", default=list(PYTHONS))
    parser.add_argument("--keep", type=Path, help="Folder for the distributions.")
    given = parser.parse_args()
    tables, missing = {}, []
    with tempfile.TemporaryDirectory() as name:
        wheels = build(given.keep or Path(name, "dist"))
        for file in sorted(wheels["lossclient"].parent.iterdir()):
            print(f"{file.stat().st_size:8} {file.name}")
        for version, python in interpreters(given.pythons).items():
            if python is None:
                missing.append(version)
                continue
            folder = Path(name, version)
            try:
                tables[version] = main_job(python, wheels, folder)
                print(f"Python {version}: passed", flush=True)
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                tables[version] = f"FAILED: {error}"
                print(f"Python {version}: FAILED: {error}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    for version in missing:
        print(f"Python {version}: not on this machine")
    print(next(iter(tables.values()), "no Python"))
    same = len(set(tables.values())) == 1 and "FAILED" not in str(tables)
    print("all the same" if same else "NOT all the same")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

"""Runs benchmarks, all unless some are named, and writes their tables into bench/results.md.

python bench/run.py [name ...]
"""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from loss_scoring.core.machine import available_cores

HERE = Path(__file__).parent
PARTS = {
    "kernel": ["kernel.py", "--repeats", "7"],
    "libraries": ["libraries.py"],
    "json": ["json_path.py"],
    "http": ["http_paths.py"],
    "small": ["small.py"],
    "files": ["files.py"],
}
INTRODUCTION = """# Measured

Printed by `make bench`; `python bench/run.py NAME` prints one section again. Ratios are taken
within one run, interleaved, and are what to read; absolute times depend on the machine and on what
else it did.
"""
PACKAGES = ("torch", "numba", "numpy", "pyarrow", "orjson", "fastapi", "starlette", "uvicorn")


def machine() -> str:
    """Describe what was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    cpu = ", ".join(models) or platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{available_cores()} CPUs ({cpu}), {memory:.0f} GiB, no GPU used; "
        f"Python {platform.python_version()}, {packages}."
    )


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    results = HERE / "results.md"
    sections = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", results.read_text()))
    for name in wanted:
        command = [sys.executable, str(HERE / PARTS[name][0]), *PARTS[name][1:]]
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(shown, flush=True)
        tables = "\n".join(line.rstrip() for line in shown.splitlines())
        sections[name] = f"{datetime.now(UTC).date()}, {machine()}\n\n```\n{tables}\n```"
        parts = [f"\n## {part}\n\n{sections[part].strip()}\n" for part in PARTS if part in sections]
        results.write_text(INTRODUCTION + "".join(parts))


if __name__ == "__main__":
    main()

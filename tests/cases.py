"""Runs each script of a folder against a service: ``python tests/cases.py FOLDER``.

A script shows one situation and says in its head what is right; it passes by ending with 0. It finds
the service by ``BASE_URL`` and the interpreter by ``PY``. Exits with 1 if any script fails.
"""

import os
import subprocess
import sys
from pathlib import Path

from instance import instance

LONGEST_S = 600


def failure_of(script: Path, url: str) -> str | None:
    """Run a script; returns the last it said if it failed."""
    try:
        done = subprocess.run(
            [sys.executable, script],
            env=os.environ | {"BASE_URL": url, "PY": sys.executable},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {LONGEST_S} s"
    return (done.stderr or done.stdout)[-2000:] if done.returncode else None


def main(folder: Path) -> int:
    """Print a line a script; returns the exit status."""
    scripts = sorted(folder.glob("*.py"))
    if not scripts:
        print(f"there are no cases in {folder}")
        return 0
    failed = 0
    with instance() as service:
        for script in scripts:
            said = failure_of(script, service.url)
            print(f"{'passed' if said is None else 'FAILED'} {script.name}", flush=True)
            if said is not None:
                failed += 1
                print("    " + said.strip().replace("\n", "\n    "), flush=True)
    print(f"{len(scripts) - failed} of {len(scripts)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

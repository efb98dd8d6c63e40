"""Compares what the images and `constraints.txt` pin with the advisories that are known (`make audit`).

python tests/deploy/audit.py PIP_AUDIT

Exits with 1 if one applies. Where their data cannot be had, from behind a mirror or without a
network, it says so: pip-audit itself calls that "no known vulnerabilities".
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [*sorted(ROOT.glob("deploy/locks/*.txt")), ROOT / "constraints.txt"]
"""The smallest comes first, so that few questions are asked where nobody answers."""
_PIN = re.compile(r"^([\w.-]+)==([^\s;+\\]+)", re.MULTILINE)
"""Less what follows a +: advisories are of releases, and torch's build for the CPU is none."""
_NOT_REACHED = re.compile(
    r"^(requests\.exceptions\.|pip_audit\._service\S*\.\w*Error\b).*", re.MULTILINE
)


class UnreachableError(Exception):
    """The data of advisories cannot be had."""


def pins_of(lock: str) -> dict[str, str]:
    """Return the versions of a lock by name."""
    return dict(_PIN.findall(lock))


def advisories_in(stdout: str, stderr: str) -> tuple[list[str], list[str]]:
    """Return what pip-audit found, a line each, and the packages of which it knows nothing.

    Raises:
        UnreachableError: If it knows nothing of any.
        ValueError: If it failed otherwise.
    """
    try:
        found: Mapping[str, Any] = json.loads(stdout)
    except ValueError:
        if reason := _NOT_REACHED.search(stderr):
            raise UnreachableError(reason[0]) from None
        raise ValueError(f"pip-audit failed: {stderr.strip()}") from None
    skipped = [one["name"] for one in found["dependencies"] if "skip_reason" in one]
    if len(skipped) == len(found["dependencies"]):
        raise UnreachableError(f"nothing is known of {', '.join(skipped[:3])} or any other")
    lines = []
    for one in found["dependencies"]:
        for advisory in one.get("vulns", ()):
            fixed = ", ".join(advisory["fix_versions"]) or "no release"
            lines.append(f"{one['name']} {one['version']}: {advisory['id']}, fixed in {fixed}")
    return lines, skipped


def audit(pip_audit: str, lock: Path) -> tuple[list[str], list[str]]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.writelines(
            f"{name}=={version}\n" for name, version in pins_of(lock.read_text()).items()
        )
        pins.flush()
        command = [pip_audit, "--requirement", pins.name, "--no-deps", "--disable-pip"]
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            check=False,
        )
    return advisories_in(done.stdout, done.stderr)


def main(pip_audit: str) -> int:
    applies = False
    for lock in LOCKS:
        name = lock.relative_to(ROOT)
        try:
            advisories, skipped = audit(pip_audit, lock)
        except UnreachableError as error:
            print(f"NOT AUDITED: {name} and what follows; no data of advisories: {error}")
            break
        applies |= bool(advisories)
        print(f"{name}: {len(advisories)} advisories apply", *advisories, sep="\n  ")
        if skipped:
            print(f"  nothing is known of {', '.join(skipped)}")
    return int(applies)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

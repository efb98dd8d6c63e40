"""Processes as the kernel shows them, in /proc. One that has ended has none of anything."""

import contextlib
import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def stat_of(pid: int) -> tuple[str, int] | None:
    """Return the state and the parent of a process, None if there is none."""
    with contextlib.suppress(OSError):
        state, parent, *_ = _stat(pid)
        return state, int(parent)
    return None


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return {pid: stat[1] for pid in pids if (stat := stat_of(pid))}


def children(pid: int) -> set[int]:
    return {child for child, parent in _parents().items() if parent == pid}


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents = _parents()
    found = [pid]
    for one in found:  # which grows
        found += [child for child, parent in parents.items() if parent == one]
    return found


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _status(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


def resident(pid: int) -> int:
    return _status(pid, "VmRSS") * 1024


def peak(pid: int) -> int:
    return _status(pid, "VmHWM") * 1024


def threads(pid: int) -> int:
    return _status(pid, "Threads")


def descriptor_numbers(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        return {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return set()


def descriptors(pid: int) -> int:
    return len(descriptor_numbers(pid))


def cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return result

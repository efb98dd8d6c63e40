"""How many processors there are for this process: those it may run on, and those it has time for.

A container with a limit of cpu still sees all processors of its node. Threads on each of them use
the time of a period up in its first moments, and then all of them stand still until the next one.
Python's own counts know of no such limit (cpython issue 80235), so it is read here.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_OLDER = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]


def available_cores(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> int:
    """Return the processors in the affinity mask, or fewer if a control group has time for fewer.

    A part of a processor counts as one, as it would be left idle else.

    Args:
        membership: Says which control groups this process is in.
        groups: Where these are mounted, those of version 2, or folders of version 1.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # not on Linux
        allowed = os.cpu_count() or 1
    return min([allowed, *_quotas(membership, groups)])


def _quotas(membership: Path, groups: Path) -> Iterator[int]:
    """Yield the processors that each group has time for, from the own one up to the root."""
    try:
        lines = membership.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            files, mounts = ["cpu.max"], {groups}
        elif "cpu" in controllers.split(","):
            files, mounts = _OLDER, {groups / controllers, groups / "cpu"}
        else:
            continue
        for folder in itertools.chain.from_iterable(_upwards(mount, path) for mount in mounts):
            yield from _quota([folder / name for name in files])


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folders of a group and of all above it.

    A container may see its own group as the root, while the path is that on the node.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in {"/", ".."}]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _quota(files: list[Path]) -> Iterator[int]:
    """Yield what quota and period amount to, rounded up; nothing if there is no quota."""
    try:
        quota, period = map(int, " ".join(file.read_text() for file in files).split())
    except (OSError, ValueError):  # no such file, or "max"
        return
    if quota > 0 and period > 0:
        yield -(-quota // period)

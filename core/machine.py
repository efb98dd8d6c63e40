"""What of this machine a process may use: its processors, and the device that a name stands for.

A container with a limit of cpu still sees all processors of its node. Threads on each of them use
the time of a period up in its first moments, and are all suspended until the next period. Python's
own counts ignore such limits (cpython issue 80235).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_DRIVERS = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")
"""What the drivers of NVIDIA (the second and third on Jetson), WSL and AMD make."""


@dataclass(frozen=True)
class Device:
    """Where to compute, named as torch names it: torch is imported only for what is no CPU."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


def is_cpu(name: str) -> bool:
    """Tell whether a name stands for the CPU, be it ``auto`` where no driver of a GPU is loaded."""
    return name == "cpu" or (name == "auto" and not any(map(os.path.exists, _DRIVERS)))


def choose_device(name: str) -> Device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names.

    Raises:
        ValueError: If it names a CUDA device that torch does not see.
        RuntimeError: If it names no device.
    """
    if is_cpu(name):
        return Device("cpu")
    import torch  # noqa: PLC0415 - it takes a second, and memory

    if name == "auto":
        return Device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return Device(device.type, device.index)


def available_cores(
    membership: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the processors in the affinity mask, or fewer if a control group has time for fewer.

    A part of a processor counts as a whole one, as it would be left idle otherwise.

    Args:
        membership: Says which control groups this process is in.
        groups: Where these are mounted, those of version 2, or folders of version 1.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # not on Linux
        allowed = os.cpu_count() or 1
    quotas = (_quota(files) for files in _quota_files(membership, groups))
    return min([allowed, *filter(None, quotas)])


def _quota_files(membership: Path, groups: Path) -> Iterator[list[Path]]:
    """Yield the files of each group and those above it; a container may see its own as the root."""
    try:
        lines = membership.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = {groups / controllers, groups / "cpu"} if controllers else {groups}
        names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
        parts = [part for part in PurePosixPath(path).parts if part not in {"/", ".."}]
        for depth in range(len(parts) + 1):
            yield from ([mount.joinpath(*parts[:depth], n) for n in names] for mount in mounts)


def _quota(files: list[Path]) -> int | None:
    """Return quota / period, rounded up; None if there is no quota."""
    try:
        quota, period = map(int, " ".join(file.read_text() for file in files).split())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None

"""Quantities as Kubernetes and NGINX write them, and the memory that settings ask for."""

import re

from loss_scoring.service.settings import Settings

MEBI = 1 << 20
IDLE_BYTES = 650 * 10**6
"""Of a process that had to compile its loops; with a cache they are 435 MB (bench/results.md)."""
KEPT_BYTES = 640 * MEBI
"""What the pools of a front end keep for later use (docs/operations.md, Size)."""
PINNED_BYTES = 512 * MEBI
"""What staging keeps for a CUDA device, inputs and answers alike."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def bytes_of(quantity: str) -> int:
    """Return the bytes of a quantity of Kubernetes."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(quantity)).groups()
    return int(number) * _UNITS[unit]


def cores_of(quantity: str) -> float:
    """Return the cores of a quantity of Kubernetes."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def nginx_bytes(size: str) -> int:
    """Return the bytes of a size of NGINX, whose units are powers of two."""
    number, unit = re.fullmatch(r"(\d+)([kmg]?)", size).groups()
    return int(number) << {"": 0, "k": 10, "m": 20, "g": 30}[unit]


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration of the Gateway API or of Prometheus."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h)", duration))


def most_memory(settings: Settings) -> int:
    """Return the bytes that the limits of a service let it take, beside what a device needs of it."""
    fronts = max(settings.frontends, 1)
    others = 2 if settings.frontends else 0  # the fork server and its worker
    share = settings.max_open_bytes
    if settings.frontends:
        from loss_scoring.service.processes.frontend import _share

        share = _share(settings).max_open_bytes
    pinned = PINNED_BYTES if settings.device.startswith("cuda") else 0
    return (fronts + others) * IDLE_BYTES + fronts * (share + KEPT_BYTES) + pinned

"""What docker-compose.yml says, read as Compose reads it."""

import re
from pathlib import PurePosixPath

import yaml
from conftest import ROOT

FILE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
VOLUMES = yaml.safe_load(FILE.read_text())["volumes"]
SCORERS = {name: one for name, one in SERVICES.items() if "build" in one}
FOREIGN = {name: one for name, one in SERVICES.items() if "build" not in one}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def started(*profiles):
    """Return the names of the services that ``docker compose --profile ... up`` starts."""
    (default,) = re.findall(r"^COMPOSE_PROFILES=(.*)$", (ROOT / ".env").read_text(), re.MULTILINE)
    active = set(profiles or default.split(","))
    return {name for name, one in SERVICES.items() if active & set(one.get("profiles", active))}


def size(text):
    """Return the bytes that ``512m`` is."""
    number, unit = re.fullmatch(r"(\d+)([kmg]?)b?", str(text)).groups()
    return int(number) * _UNITS[unit]


def seconds(text):
    """Return the seconds that ``30s`` is."""
    return int(re.fullmatch(r"(\d+)s", text)[1])


def tmpfs(service):
    """Return the options of each tmpfs by where it is."""
    parts = (entry.partition(":") for entry in service.get("tmpfs", ()))
    return {where: options.split(",") for where, _, options in parts}


def mounts(service):
    """Return what is mounted where, as (source, target, mode); the mode of a volume is rw."""
    entries = (entry.split(":") for entry in service.get("volumes", ()))
    return [(source, target, *mode, "rw")[:3] for source, target, *mode in entries]


def bind_mounts(service):
    """Return the path in this tree of each mounted file or folder, by where it is."""
    return {
        PurePosixPath(target): ROOT / source
        for source, target, _ in mounts(service)
        if source.startswith(".")
    }


def port_of(service):
    """Return the one port that a container listens on and that is published under its own number."""
    (entry,) = service["ports"]
    _, published, target = entry.rsplit(":", 2)
    assert published == target
    return int(target)

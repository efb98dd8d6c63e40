"""Builds the image where there is no Docker daemon: by buildah, on a base that debootstrap makes.

Whatever pip is told on this machine (an index, a certificate, folders of wheels) it is told in the
build as well, by files that are mounted for as long as the build takes and leave nothing behind.
"""

import configparser
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/loss-scoring-base:bookworm"
RELEASE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs")


def output(*command: str | Path) -> str:
    """Run a command; returns what it prints, or raises with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def base_image() -> str:
    """Return the name of a Debian with Python alone, made here unless it is there."""
    known = output("podman", "images", "--format", "{{.Repository}}:{{.Tag}}")
    if BASE not in known.splitlines():
        with tempfile.TemporaryDirectory() as folder:
            include = "--include=ca-certificates,python3,python3-venv"
            output("debootstrap", "--variant=minbase", include, RELEASE, folder)
            archive = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
            subprocess.run(
                ["podman", "import", "--quiet", "-", BASE], stdin=archive.stdout, check=True
            )
    return BASE


def pip_settings(folder: Path) -> list[str]:
    """Write pip's settings on this machine to a file; returns what to mount for it."""
    config = configparser.RawConfigParser()
    config.add_section("global")
    local = []
    for line in output(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        text = value.strip("'\"").replace("\\n", "\n")
        config.set("global", name.rpartition(".")[2], text)
        paths = (Path(urlparse(word).path) for word in text.split() if "/" in word)
        local += [path for path in paths if path.is_absolute() and path.exists()]
    written = folder / "pip.conf"
    with written.open("w") as file:
        config.write(file)
    # A folder below the certificates is mounted with them; "file:///folder/simple" has its wheels
    # beside it.
    local = [path.parent if path.name == "simple" else path for path in local]
    seen = {path for path in local if CERTIFICATES not in path.parents}
    mounts = [(written, Path("/etc/pip.conf")), *((path, path) for path in sorted(seen))]
    if CERTIFICATES.is_dir():
        mounts.append((CERTIFICATES, CERTIFICATES))
    return [word for here, there in mounts for word in ("--volume", f"{here}:{there}:ro")]


def build(variant: str, base: str, log: Path, torch_cpu_index: str | None) -> str:
    """Build the image for ``cuda`` or ``cpu``; returns its name. What buildah says is in the log."""
    name = f"localhost/loss-scoring:{variant}"
    arguments = {"BASE_IMAGE": base, "VARIANT": variant}
    if torch_cpu_index is not None:
        arguments["TORCH_CPU_INDEX"] = torch_cpu_index
    with tempfile.TemporaryDirectory() as folder, log.open("w") as said:
        # The format of OCI has no health check; chroot needs no daemon, nor rights for namespaces.
        command = ["buildah", "bud", "--layers", "--format", "docker", "--isolation", "chroot"]
        command += ["--network", "host", "--tag", name, *pip_settings(Path(folder))]
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        done = subprocess.run([*command, str(ROOT)], stdout=said, stderr=said, check=False)
    if done.returncode:
        raise RuntimeError(f"the build failed:\n{log.read_text()[-3000:]}")
    return name

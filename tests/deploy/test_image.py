"""What the image is built from, checked without building it (``make image-test`` does)."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy/locks"
VERSION = (ROOT / "VERSION").read_text().strip()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name):
    """Return the versions of a lock, after seeing that each has hashes."""
    entries = re.findall(
        r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", text(name), re.MULTILINE
    )
    assert all(hashes for *_, hashes in entries)
    assert len(entries) == len(re.findall(r"^\S", text(name), re.MULTILINE))
    return {canonicalize_name(package): version for package, version, _ in entries}


def text(name):
    return (LOCKS / f"{name}.txt").read_text()


def test_the_dockerfile_is_without_blame():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", ["cuda", "cpu"])
def test_what_the_image_installs_is_what_is_tested(variant):
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    tested = {canonicalize_name(name): version for name, version in constraints.items()}
    versions = {name: version.removesuffix("+cpu") for name, version in locked(variant).items()}
    needed = map(Requirement, PROJECT["project"]["dependencies"])
    assert {canonicalize_name(each.name) for each in needed} <= versions.keys()
    only_cuda = {name for name in versions if name.startswith(("nvidia-", "cuda-"))}
    assert bool(only_cuda) is (variant == "cuda")
    assert {name: versions[name] for name in versions.keys() - only_cuda} == {
        name: tested[name] for name in versions.keys() - only_cuda
    }


def test_the_image_is_built_by_what_builds_the_project():
    backend = {
        canonicalize_name(Requirement(each).name) for each in PROJECT["build-system"]["requires"]
    }
    assert backend | {"pip"} <= locked("build").keys()


def test_no_lock_names_an_index():
    for name in ("cuda", "cpu", "build"):
        assert "//" not in text(name)


def test_what_the_image_writes_lies_in_the_one_folder_that_can_be_written():
    dockerfile = (ROOT / "Dockerfile").read_text()
    folders = re.findall(r"(?:HOME|_CACHE_DIR)=(\S+)", dockerfile[dockerfile.rindex("\nFROM") :])
    assert len(folders) == 2
    assert all(Path(folder).is_relative_to("/tmp") for folder in folders)  # noqa: S108 - inside


def test_the_image_says_which_version_it_is():
    assert f'image.version="{VERSION}"' in (ROOT / "Dockerfile").read_text()
    for overlay in (ROOT / "deploy/overlays").glob("*/kustomization.yaml"):
        text = overlay.read_text()
        assert f"version: {VERSION}\n" in text
        assert f"newTag: {VERSION}-" in text or "images:" not in text


def test_both_distributions_have_the_one_version():
    assert version("loss-scoring") == version("lossclient") == VERSION
    for folder in (ROOT, ROOT / "lossclient"):
        assert (folder / "VERSION").samefile(ROOT / "VERSION")
    assert {"!VERSION", "!pyproject.toml"} <= set((ROOT / ".dockerignore").read_text().splitlines())


def test_the_pythons_of_the_metadata_are_those_that_are_tried():
    def named(folder):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        found = re.findall(r"Python :: (3\.\d+)", str(project["classifiers"]))
        assert project["requires-python"] == f">={found[0]}"
        return found

    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert (
        named(ROOT) == named(ROOT / "lossclient") == jobs["wheels"]["strategy"]["matrix"]["python"]
    )


def test_licence_is_in_both_packages_and_on_the_image():
    """In lossclient as a copy, since a package may not name files above its own folder."""
    for folder in (ROOT, ROOT / "lossclient"):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
        licence = (folder / "LICENSE").read_text()
        assert "Version 2.0, January 2004" in licence
        assert licence == (ROOT / "LICENSE").read_text()
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'image.licenses="Apache-2.0"' in dockerfile
    assert "LICENSE VERSION ./\n" in dockerfile
    assert "!LICENSE" in (ROOT / ".dockerignore").read_text().splitlines()


def test_its_loops_are_compiled_for_a_named_processor_and_nothing_of_the_builder_s():
    """Else each other processor finds none of them, and compiles at every start."""
    script = "from numba.core.registry import cpu_target as t\n"
    script += "print(t.target_context.codegen().magic_tuple()[1:])"
    dockerfile = (ROOT / "Dockerfile").read_text()
    given = dict(re.findall(r"^ .*(NUMBA_CPU_\w+)=(\S+)", dockerfile, re.MULTILINE))
    assert given == {"NUMBA_CPU_FEATURES": "${CPU_FEATURES}", "NUMBA_CPU_NAME": "${CPU_NAME}"}
    assert dockerfile.count("NUMBA_CPU_NAME=") == dockerfile.count("NUMBA_CPU_FEATURES=") == 2
    assert dockerfile.count('ARG CPU_FEATURES=""\n') == 2
    given = {"NUMBA_CPU_FEATURES": "", "NUMBA_CPU_NAME": "x86-64-v3"}
    key = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | given, check=True, capture_output=True
    ).stdout
    assert key.strip() == b"('x86-64-v3', '')"


def test_the_wheel_installs_one_name_with_real_folders():
    """``core`` and ``service`` are too common to be names of packages; see decision 0022."""
    files = list(WheelBuilder(str(ROOT)).recurse_included_files())
    paths = {Path(file.distribution_path) for file in files}
    assert {path.parts[0] for path in paths} == {"loss_scoring"}
    assert Path("loss_scoring/core/losses/__init__.py") in paths
    assert Path("loss_scoring/service/cli/__init__.py") in paths
    assert {Path(f"loss_scoring/{part}py.typed") for part in ("", "core/", "service/")} <= paths


@pytest.mark.parametrize("shared", ["comparison", "joining"])
def test_both_wheels_hold_what_they_share(shared):
    """Folders that are linked; see decision 0027."""
    names = {path.name for path in (ROOT / "core/table" / shared).glob("*.py")}
    for folder, package in ((ROOT, "loss_scoring/core/table"), (ROOT / "lossclient", "lossclient")):
        files = WheelBuilder(str(folder)).recurse_included_files()
        paths = {Path(file.distribution_path) for file in files}
        assert {path.name for path in paths if path.parent == Path(package) / shared} == names

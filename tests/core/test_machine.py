"""The processors that this process may use, told from files laid out as the kernel lays them out."""

import os
from pathlib import Path

import pytest
import torch

from loss_scoring.core.kernels.fused_cpu import FusedCpuKernel
from loss_scoring.core.machine import available_cores, choose_device, is_cpu

MANY = frozenset(range(64))


@pytest.fixture
def cores(tmp_path, monkeypatch):
    """Count with 64 processors in the mask, a membership and the files of the groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: MANY)

    def count(membership: str, files: dict[str, str]) -> int:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            file = tmp_path / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        return available_cores(tmp_path / "membership", tmp_path / "fs")

    return count


V2, V1 = "0::/pods/mine\n", "5:memory:/pods/mine\n4:cpu,cpuacct:/pods/mine\n0::/\n"


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("9000000 100000", 64),
        ("100000", 64),
        ("1000 0", 64),
        ("-5 7", 64),
        ("", 64),
    ],
)
def test_a_quota_limits_the_mask_and_is_rounded_up(cores, quota, expected):
    assert cores(V2, {"pods/mine/cpu.max": quota}) == expected


def test_the_least_quota_of_a_group_and_those_above_it_holds(cores):
    files = {"pods/mine/cpu.max": "max 100000", "pods/cpu.max": "300000 100000"}
    assert cores(V2, files | {"other/cpu.max": "100000 100000"}) == 3
    assert cores(V2, files | {"cpu.max": "20000 10000"}) == 2
    assert cores(V2, files | {"pods/mine/cpu.max": "10000 10000"}) == 1


@pytest.mark.parametrize("membership", ["0::/\n", "0::/../../elsewhere\n", "0::/on/the/node\n"])
def test_a_container_sees_its_own_group_as_the_root(cores, membership):
    assert cores(membership, {"cpu.max": "400000 100000"}) == 4


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("group", ["", "pods", "pods/mine"])
def test_the_older_kind_of_groups_has_two_files(cores, mount, group):
    folder = f"{mount}/{group}".rstrip("/")
    files = {f"{folder}/cpu.cfs_quota_us": "150000", f"{folder}/cpu.cfs_period_us": "100000"}
    assert cores(V1, files) == 2
    assert cores(V1, {f"{folder}/cpu.cfs_quota_us": "-1"}) == 64


def test_without_groups_the_mask_alone_counts(cores, tmp_path, monkeypatch):
    assert cores("", {}) == 64
    assert cores("nonsense\n1:2\n", {}) == 64
    assert available_cores(tmp_path / "none", tmp_path / "none") == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5})
    assert cores(V2, {"pods/mine/cpu.max": "900000 100000"}) == 2


def test_without_an_affinity_mask_all_processors_count(cores, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores("", {}) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores("", {}) == 1


def test_the_kernel_has_a_thread_for_each_processor_that_may_be_used():
    assert FusedCpuKernel().threads == available_cores()


def test_processors_are_counted_in_one_module():
    root = Path(__file__).parents[2]
    files = [path for part in ("core", "service") for path in (root / part).rglob("*.py")]
    counting = [f.name for f in files if {"cpu_count(", "sched_getaffinity("} & set_of(f)]
    assert counting == ["machine.py"]


def set_of(file: Path) -> set[str]:
    text = file.read_text()
    return {name for name in ("cpu_count(", "sched_getaffinity(") if name in text}


@pytest.mark.parametrize("driver", ["nvidiactl", "nvgpu", "nvhost-gpu", "dxg", "kfd", None])
def test_auto_asks_torch_where_a_driver_of_a_gpu_is_loaded(driver, monkeypatch):
    """Those of NVIDIA, of Jetson, of WSL and of AMD, whose devices torch calls CUDA too."""
    monkeypatch.setattr(os.path, "exists", lambda path: path == f"/dev/{driver}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert is_cpu("auto") == (driver is None)
    assert str(choose_device("auto")) == ("cpu" if driver is None else "cuda")
    assert is_cpu("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"

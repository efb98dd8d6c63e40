"""Who adds the scaler to a Deployment that runs keeps its pods, by kubectl itself against a small server."""

import os
import re
import subprocess

import pytest
import yaml
from api_server import cluster
from conftest import ROOT
from rendered import KUBECTL, render, skips, why_not, with_changes

pytestmark = pytest.mark.skipif(skips(), reason=str(why_not()))
OPERATIONS = (ROOT / "docs/operations.md").read_text()
(COMMAND,) = re.findall(r"^(KUBE_EDITOR=.*)$", OPERATIONS, re.MULTILINE)


@pytest.fixture
def running(tmp_path):
    """A service without a scaler, of which somebody made three pods, and how to run kubectl."""
    (tmp_path / "bin").mkdir()
    with cluster() as held:
        wrapper = tmp_path / "bin/kubectl"
        options = f"--server {held.url} --cache-dir {tmp_path}/cache -n loss-scoring"
        wrapper.write_text(f'#!/bin/sh\nexec {KUBECTL} {options} "$@"\n')
        wrapper.chmod(0o755)
        path = f"{wrapper.parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "KUBECONFIG": os.devnull}

        def shell(command):
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        for name, rendered in {
            "without": with_changes("gpu", ["-keda"]),
            "with": render("gpu"),
        }.items():
            text = yaml.safe_dump(rendered.one("Deployment"))
            (tmp_path / f"{name}.yaml").write_text(text)
        shell("kubectl apply -f without.yaml")
        held.deployment["spec"]["replicas"] = 3
        yield held, shell


def test_the_number_stays_when_it_is_forgotten_first(running):
    held, shell = running
    shell(COMMAND)
    shell("kubectl apply -f with.yaml")
    assert held.deployment["spec"]["replicas"] == 3


def test_otherwise_one_pod_is_left(running):
    held, shell = running
    shell("kubectl apply -f with.yaml")
    assert held.deployment["spec"]["replicas"] == 1

"""Where there is no kubectl the manifests are not tested, which only a developer may pass over."""

import os
import stat
import subprocess

import pytest
import rendered
from conftest import ROOT


@pytest.fixture
def no_kubectl(monkeypatch):
    monkeypatch.setattr(rendered, "KUBECTL", None)
    rendered.why_not.cache_clear()
    yield
    rendered.why_not.cache_clear()


@pytest.mark.usefixtures("no_kubectl")
@pytest.mark.parametrize("name", ["CI", "NEEDS_KUBECTL"])
def test_a_developer_skips_what_ci_fails(name, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("NEEDS_KUBECTL", raising=False)
    assert rendered.skips()
    monkeypatch.setenv(name, "true")
    assert not rendered.skips()
    with pytest.raises(AssertionError, match="kubectl is not installed"):
        rendered.documents(rendered.DEPLOY / "overlays/cpu")


def test_the_check_of_a_clean_checkout_needs_it(tmp_path):
    for name, says in {"promtool": "", "make": 'echo "$1 $NEEDS_KUBECTL"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NEEDS_KUBECTL": ""}
    command = [ROOT / ".ci/run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["test true", "CI PASSED"]

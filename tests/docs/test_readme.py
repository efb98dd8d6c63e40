"""Every example of the README runs as it is printed."""

import json
import re
import subprocess

import pytest
from conftest import ROOT

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.mark.parametrize("source", blocks("python"))
def test_python(source, url, capsys):
    exec(compile(source.replace("http://127.0.0.1:8000", url), "README", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip()


def test_curl_prints_what_the_readme_says(url):
    (command,) = (text for text in blocks("sh") if text.startswith("curl"))
    run = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8000", url)],
        capture_output=True,
        check=True,
    )
    (printed,) = blocks("json")
    assert json.loads(run.stdout) == json.loads(printed)


def test_commands_without_a_server(tmp_path):
    (commands,) = (text for text in blocks("sh") if ".venv/bin/loss-scoring" in text)
    from conftest import LOSS_SCORING

    text = commands.replace(".venv/bin/loss-scoring", str(LOSS_SCORING))
    run = subprocess.run(
        ["bash", "-ec", text.replace("scores.parquet", str(tmp_path / "scores.parquet"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "AutoETS" in run.stdout
    assert (tmp_path / "scores.parquet").stat().st_size > 0


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text())
    assert {"run", "test"} <= set(named)
    assert all(f"\n{target}:" in makefile for target in named)

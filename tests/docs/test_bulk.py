"""Every example of docs/bulk.md runs as it is printed, and what it names is there."""

import re

import pytest
from conftest import ROOT

TEXT = (ROOT / "docs/bulk.md").read_text()
EXAMPLES = {"examples/ray_data.py", "examples/spark.py"}


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_python(source, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(source, "bulk.md", "exec"), {})  # noqa: S102 - our own document
    assert "AutoETS" in capsys.readouterr().out


def test_what_is_quoted_stands_in_the_examples():
    assert set(re.findall(r"\.\./(examples/\w+\.py)", TEXT)) == EXAMPLES
    quoted = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    for example, quote in zip(sorted(EXAMPLES), quoted, strict=True):
        calls = re.findall(r"\.(\w+)\(", quote)
        source = (ROOT / example).read_text()
        assert all(f"{call}(" in source for call in calls), example


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{name}:" in makefile for name in re.findall(r"`make ([a-z-]+)`", TEXT))

"""What the command line refuses with an engine; tests/bulk scores on real Ray."""

import sys

import pytest

from loss_scoring.service.cli import main


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["f.parquet", "--by", "horizon"], "--engine ray: leave out --by, --sort and --device"),
        (["f.parquet", "--sort"], "--engine ray: leave out --by, --sort and --device"),
        (["f.parquet", "--device", "cpu"], "--engine ray: leave out --by, --sort and --device"),
        (["-"], "--engine ray: reads and writes Parquet files, not standard streams"),
        (["f.parquet", "-o", "-"], "--engine ray: reads and writes Parquet files, not standard"),
        (["f.parquet"], "pip install 'ray[data]'"),
    ],
)
def test_an_engine_refuses_in_words(flags, fault, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    monkeypatch.setattr(sys, "argv", ["loss-scoring", "score", *flags, "--engine", "ray"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert fault in capsys.readouterr().err

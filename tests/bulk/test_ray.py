"""Scores and leaderboards on real Ray, against the whole table at once."""

import runpy
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.core.table import (
    TableError,
    leaderboard,
    leaderboard_ray,
    score_ray,
    score_table,
)
from loss_scoring.service.cli import main

ray = pytest.importorskip("ray", reason="make test-ray installs it in an environment of its own")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
ORDER = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    # A worker imports what the driver does, from where the driver does.
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def table():
    return pq.read_table(ROOT / "examples/data/forecasts.parquet")


@pytest.fixture(scope="module")
def dataset(table):
    """The table in blocks that cut series, which a shuffle of rows has not left in order."""
    return ray.data.from_arrow([table.slice(start, 700) for start in range(0, len(table), 700)])


def collected(dataset) -> pa.Table:
    parts = ray.get(dataset.to_arrow_refs())
    return pa.concat_tables([part for part in parts if part.num_rows]).sort_by(ORDER)


def test_scores_equal_those_of_the_whole_table(dataset, table):
    options = {"missing": "skip", "gradients": True, "losses": ["mae", "huber:delta=2"]}
    scores = collected(score_ray(dataset, partitions=5, **options))
    want = score_table(table, **options).sort_by(ORDER)
    assert scores.select(want.column_names).cast(want.schema).equals(want)


def test_actuals_and_history_go_to_the_actors(dataset, table):
    actuals = table.group_by(["unique_id", "ds"]).aggregate([("y", "max")])
    actuals = actuals.rename_columns(["unique_id", "ds", "y"]).slice(100)
    forecasts = ray.data.from_arrow(table.drop(["y"]).slice(0, 2000))
    options = {"missing": "skip", "losses": ["mae"], "actuals": actuals}
    scores = collected(score_ray(forecasts, partitions=3, actors=1, **options))
    want = score_table(table.drop(["y"]).slice(0, 2000), **options).sort_by(ORDER)
    assert scores.equals(want)
    options = {"missing": "skip", "losses": ["mase"], "train_df": actuals, "seasonality": 4}
    scores = collected(score_ray(dataset, partitions=3, **options))
    assert scores.equals(score_table(table, **options).sort_by(ORDER))


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "SeasonalNaive"},
        {"weights": "length", "n_resamples": 0},
        {"by": "cutoff", "n_resamples": 10},
        {"baseline": "SeasonalNaive", "missing": "impute", "n_resamples": 10},
    ],
)
def test_leaderboards_have_the_bits_of_the_whole(table, options):
    losses = ["smape", "mae"]
    scores = score_table(table, missing="skip")
    blocks = [scores.slice(start, 7) for start in range(0, len(scores), 7)]  # cuts series
    got = leaderboard_ray(ray.data.from_arrow(blocks), losses, partitions=3, **options)
    want = leaderboard(scores, losses, **options)
    assert got.to_arrow().equals(want.to_arrow())
    assert got.notes == want.notes


@pytest.mark.parametrize(
    "times", [pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.date32())]
)
def test_times_may_be_coded_by_dictionaries(table, times):
    column = table.schema.get_field_index("ds")
    coded = table["ds"].cast(pa.date32()).cast(times.value_type).dictionary_encode()
    table = table.set_column(column, "ds", coded.cast(times)).slice(0, 2000)
    options = {"missing": "skip", "losses": ["mae"]}
    blocks = ray.data.from_arrow([table.slice(700), table.slice(0, 700)])
    scores = collected(score_ray(blocks, partitions=2, **options))
    assert scores.equals(score_table(table, **options).sort_by(ORDER))


def test_series_in_parts_are_noticed(table):
    halves = ray.data.from_arrow([table.slice(0, 1001), table.slice(1001)])
    scores = score_ray(halves, shuffle=False, actors=1, missing="skip")
    with pytest.raises(ray.exceptions.RayTaskError, match="are both model="):
        leaderboard_ray(scores, "mae", partitions=2)


def test_faults_come_before_a_shuffle(dataset):
    with pytest.raises(TableError, match="'store' is absent"):
        score_ray(dataset, group_by=["store"])
    with pytest.raises(ValueError, match="by is not for tables"):
        score_ray(dataset, by="horizon")
    with pytest.raises(ValueError, match="unknown loss 'mad'"):
        score_ray(dataset, losses=["mad"])


def command(monkeypatch, capsys, *arguments, quiet=("-q",)) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["loss-scoring", *quiet, "score", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capsys.readouterr()


def test_the_command_line_scores_on_it(table, tmp_path, monkeypatch, capsys):
    actuals = table.group_by(["unique_id", "ds"]).aggregate([("y", "max")])
    pq.write_table(actuals.rename_columns(["unique_id", "ds", "y"]), tmp_path / "actuals.parquet")
    for i in range(3):
        part = table.drop(["y"]).slice(1000 * i, 1000 if i < 2 else None)  # cuts series
        pq.write_table(part, tmp_path / f"part-{i}.parquet")
    flags = ["--actuals", tmp_path / "actuals.parquet", "--missing", "skip", "--losses", "mae"]
    flags += ["--baseline", "SeasonalNaive"]
    pattern, output = tmp_path / "part-*.parquet", tmp_path / "scores"
    status, out, _ = command(monkeypatch, capsys, pattern, *flags, "--engine", "ray", "-o", output)
    assert status == 0
    assert (0, out) == command(monkeypatch, capsys, pattern, *flags)[:2]
    want = score_table(table, losses=["mae"], missing="skip").sort_by(ORDER)
    assert pq.read_table(output).cast(want.schema).sort_by(ORDER).equals(want)
    again = command(monkeypatch, capsys, pattern, *flags, "--engine", "ray", "-o", output)
    assert again[0] == 1
    assert f"error: {output}: " in again[2]


def test_the_command_line_counts_rows_without_an_actual_value(table, tmp_path, monkeypatch, capsys):
    actuals = table.group_by(["unique_id", "ds"]).aggregate([("y", "max")])
    known = actuals.rename_columns(["unique_id", "ds", "y"]).slice(100)
    pq.write_table(known, tmp_path / "actuals.parquet")
    pq.write_table(table.drop(["y"]), tmp_path / "forecasts.parquet")
    matched = table.join(known.select(["unique_id", "ds"]), ["unique_id", "ds"], join_type="inner")
    flags = [tmp_path / "forecasts.parquet", "--actuals", tmp_path / "actuals.parquet"]
    flags += ["--missing", "skip", "--losses", "mae", "--engine", "ray"]
    status, _, err = command(monkeypatch, capsys, *flags, quiet=())
    assert status == 0
    without = len(table) - len(matched)
    assert 0 < without < len(table)
    assert f"{len(matched)} rows of forecasts have an actual value, {without} have none yet" in err


def test_the_command_line_says_what_is_wrong(table, tmp_path, monkeypatch, capsys):
    path = tmp_path / "forecasts.parquet"
    values = [None if row == 2000 else 1.0 for row in range(len(table))]  # not in the first rows
    models = table.select(["unique_id", "ds", "cutoff"]).append_column("A", [values])
    pq.write_table(models.append_column("y", [[1.0] * len(table)]), path)
    status, _, err = command(monkeypatch, capsys, path, "--engine", "ray")
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {path}: column 'A' is missing or not finite")
    status, _, err = command(monkeypatch, capsys, path, "--engine", "ray", "--by", "horizon")
    assert (status, "leave out --by" in err) == (2, True)
    (tmp_path / "f.csv").write_text("unique_id,y,A\na,1,2\n")
    status, _, err = command(monkeypatch, capsys, tmp_path / "f.csv", "--engine", "ray")
    assert (status, "--engine ray reads Parquet" in err) == (2, True)


def test_the_example_prints_the_leaderboard(table, tmp_path, monkeypatch, capsys):
    example, data = ROOT / "examples/ray_data.py", ROOT / "examples/data/forecasts.parquet"
    flags = ["--partitions", "2", "-o", str(tmp_path / "scores")]
    monkeypatch.setattr(sys, "argv", [str(example), str(data), *flags])
    runpy.run_path(str(example), run_name="__main__")
    want = score_table(table, missing="skip")
    assert capsys.readouterr().out.rstrip().endswith(repr(leaderboard(want, "smape")))
    assert len(pq.read_table(tmp_path / "scores")) == len(want)

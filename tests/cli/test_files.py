"""The command line over files, against numpy and against the service's own core."""

import io
import subprocess
import sys
import tracemalloc

import forecasts
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING
from typer.testing import CliRunner

from loss_scoring.core.table import score_table
from loss_scoring.service.cli import app
from loss_scoring.service.cli.columns import Roles, find_columns
from loss_scoring.service.cli.files import open_source
from loss_scoring.service.cli.locations import File
from loss_scoring.service.cli.series import read_series

EXAMPLE = forecasts.LONG


def no_text(_names):
    return ()


def reference(table: pa.Table, model: str) -> dict[tuple, tuple]:
    """Score by numpy, series by series: (mae, mape, smape, mape masked), missing skipped."""
    rows: dict[tuple, list] = {}
    for uid, cutoff, y, p in zip(
        *(table[name].to_pylist() for name in ("unique_id", "cutoff", "y", model)), strict=True
    ):
        rows.setdefault((uid, cutoff), []).append((y, p))
    scores = {}
    for key, pairs in rows.items():
        kept = np.array([pair for pair in pairs if None not in pair]).reshape(-1, 2)
        y, p = kept.T
        if not len(y):
            scores[key] = (None, None, None, 0)
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            mape, smape = np.abs((y - p) / y), np.abs(y - p) / (np.abs(y) + np.abs(p))
        bad = ~np.isfinite(mape)
        scores[key] = (
            np.abs(y - p).mean(),
            np.where(bad, 0, mape).mean(),
            np.where(np.isfinite(smape), smape, 0).mean(),
            bad.sum(),
        )
    return scores


@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow"])
def test_long_form_against_numpy(tmp_path, ending):
    output = tmp_path / f"scores.{ending}"
    status, out, err = cli("score", EXAMPLE, "--missing", "skip", "-o", output)
    models = ["SeasonalNaive", "AutoETS", "Theta", "CrostonSBA"]
    assert status == 0
    assert err.splitlines()[0] == f"scored as models: {', '.join(models)}"
    read = {
        "parquet": pq.read_table,
        "csv": pyarrow.csv.read_csv,
        "arrow": lambda path: pa.ipc.open_file(path).read_all(),
    }[ending]
    scores, table = read(output), pq.read_table(EXAMPLE)
    assert scores["model"].to_pylist()[:4] == models
    for model in models:
        assert model in out
        got = scores.filter(pc.equal(scores["model"], model))
        want = reference(table, model)
        assert got["unique_id"].to_pylist() == [key[0] for key in want]
        for name, column in zip(
            ("mae", "mape", "smape"), zip(*want.values(), strict=True), strict=False
        ):
            values = got[name].to_pylist()
            assert [x is None for x in values] == [x is None for x in column]
            assert np.allclose(
                *([x for x in side if x is not None] for side in (values, column)),
                rtol=1e-12,
                atol=0,
            )
        assert got["mape_masked"].to_pylist() == [row[3] for row in want.values()]


def test_the_table_of_a_small_file(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,naive,naive-lo-90,note\na,1,1,2,0,x\na,2,0,3,0,x\nb,1,4,,0,x\n")
    status, out, _ = cli("score", path, "--missing", "skip", "--losses", "mae,mape")
    assert status == 0
    assert out.splitlines() == [
        "loss,model,n,mean,median,avg_rank,wins,win_rate,num_failures,masked",
        "mae,naive,1,2.0,2.0,1.0,1,,1,",
        "mape,naive,1,0.5,0.5,1.0,1,,1,1",
    ]


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_nested_form_equals_long_form(tmp_path, ending):
    nested, table = tmp_path / f"nested.{ending}", forecasts.nested()
    if ending == "parquet":
        pq.write_table(table, nested)
    else:
        with pa.ipc.new_file(nested, table.schema) as file:
            file.write_table(table)
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    assert cli("score", nested, "--missing", "skip", "-o", one)[0] == 0
    assert cli("score", EXAMPLE, "--missing", "skip", "--models", "Theta", "-o", other)[0] == 0
    for name in ("length", "mae", "mape", "smape", "mape_masked", "smape_masked"):
        assert pq.read_table(one)[name].equals(pq.read_table(other)[name])


def test_files_of_one_row_a_series_are_not_sorted(tmp_path):
    nested = tmp_path / "nested.parquet"
    pq.write_table(forecasts.nested(), nested)
    status, out, err = cli("score", nested, "--missing", "skip", "--sort")
    assert (status, out) == (1, "")
    assert "--sort is for files with a row an element" in err


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_series_do_not_depend_on_the_batches_of_the_file(batch_rows):
    def read(rows):
        source = open_source(File.at(EXAMPLE), rows)
        layout = find_columns(source, Roles(cutoff="cutoff", models="Theta"))
        blocks = list(read_series(source, layout, sort=False))
        keys = pa.concat_tables([block.groups.keys for block in blocks]).to_pylist()
        lengths = [n for block in blocks for n in np.diff(block.groups.offsets).tolist()]
        values = [x for block in blocks for x in block.values("Theta").tolist()]
        assert sum(block.rows for block in blocks) == source.rows
        return keys, lengths, values

    assert read(batch_rows) == read(1 << 20)


def test_scattered_rows_are_refused_and_sorted_on_demand(tmp_path):
    table = pq.read_table(EXAMPLE)
    scattered = tmp_path / "scattered.parquet"
    order = np.random.default_rng(1).permutation(len(table))
    pq.write_table(table.take(order), scattered)
    status, _, err = cli("score", scattered, "--missing", "skip")
    assert status == 1
    assert "are not together" in err
    assert "--sort" in err
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    assert cli("score", scattered, "--sort", "--missing", "skip", "-o", one)[0] == 0
    assert cli("score", EXAMPLE, "--missing", "skip", "-o", other)[0] == 0
    keys = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]
    sides = [pq.read_table(path).sort_by(keys) for path in (one, other)]
    assert sides[0].drop(["mae", "mape", "smape"]) == sides[1].drop(["mae", "mape", "smape"])
    for name in ("mae", "mape", "smape"):  # the rows of a series were summed in another order
        values = [np.array(side[name].to_pylist(), float) for side in sides]
        assert np.allclose(*values, rtol=1e-13, atol=0, equal_nan=True)


def test_scattered_rows_of_categories_are_sorted_as_well(tmp_path):
    ids = pa.array(["b", "a", "b"]).dictionary_encode()
    path, output = tmp_path / "f.parquet", tmp_path / "scores.parquet"
    pq.write_table(pa.table({"unique_id": ids, "y": [1.0, 2, 3], "m": [2.0, 4, 6]}), path)
    assert cli("score", path, "--sort", "-o", output)[0] == 0
    scores = pq.read_table(output).select(["unique_id", "length", "mae"])
    assert scores.to_pydict() == {"unique_id": ["a", "b"], "length": [1, 2], "mae": [2.0, 2.0]}


@pytest.mark.parametrize("batch_rows", [1, 300, 1 << 17])
def test_the_answer_is_that_of_the_whole_table(tmp_path, monkeypatch, batch_rows):
    monkeypatch.setattr(open_source, "__defaults__", (batch_rows, no_text))
    output = tmp_path / "scores.parquet"
    path, table = tmp_path / "f.parquet", pq.read_table(EXAMPLE).slice(0, 2000)
    pq.write_table(table, path)
    assert cli("score", path, "--missing", "skip", "-o", output)[0] == 0
    assert pq.read_table(output).equals(score_table(table, missing="skip"))


@pytest.mark.parametrize("flags", [[], ["--sort"]])
def test_keys_of_floats_go_on_in_the_next_batch(tmp_path, monkeypatch, flags):
    monkeypatch.setattr(open_source, "__defaults__", (2, no_text))
    cutoffs = [0.0, -0.0, 0.0, *[float("nan")] * 4, float("inf")]
    table = pa.table({"unique_id": ["a"] * 8, "cutoff": cutoffs, "y": [1.0] * 8, "m": range(8)})
    path, output = tmp_path / "f.parquet", tmp_path / "scores.parquet"
    pq.write_table(table, path)
    assert cli("score", path, "-o", output, *flags)[0] == 0
    assert sorted(pq.read_table(output)["length"].to_pylist()) == [1, 3, 4]


@pytest.mark.parametrize("apart", [1, 3, 40])
def test_a_series_that_comes_back_is_refused_wherever_it_does(tmp_path, monkeypatch, apart):
    monkeypatch.setattr(open_source, "__defaults__", (2, no_text))
    monkeypatch.setattr("loss_scoring.service.cli.series._FIRST_CHECK", 4)
    path, output = tmp_path / "f.parquet", tmp_path / "scores.parquet"
    ids = ["again", *(f"id-{n}" for n in range(apart)), "again"]
    numbers = [1.0] * len(ids)
    pq.write_table(pa.table({"unique_id": ids, "y": numbers, "m": numbers}), path)
    status, _, err = cli("score", path, "-o", output)
    assert status == 1
    assert "the rows of series unique_id='again' are not together" in err
    assert not output.exists()
    assert cli("score", path, "--sort")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "flags", "expected"),
    [
        ("absent.csv", None, [], "absent.csv"),
        ("f.txt", "a", [], "ending"),
        ("f.csv.gz", "a", [], "f.csv.gz"),
        ("f.csv.bz2", "a", [], "decompress it first"),
        ("f*.parquet", None, [], "no file has such a name"),
        ("nowhere://bucket/f.csv", None, [], "nowhere://bucket/f.csv: Protocol not known"),
        ("f.parquet", "not parquet", [], "f.parquet"),
        ("f.arrow", "not arrow", [], "f.arrow"),
        ("f.csv", "", [], "f.csv"),
        ("f.csv", "unique_id,y,m\n", [], "no rows"),
        ("f.csv", "y,m\n1,2\n", [], "--id-col"),
        ("f.csv", "unique_id,m\na,2\n", [], "--target-col"),
        ("f.csv", "unique_id,ds,y\na,1,2\n", [], "no column of predictions"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--models", "n"], "'n'"),
        ("f.csv", "unique_id,y,m\na,1,x\n", ["--models", "m"], "must hold numbers"),
        ("f.csv", "unique_id,y,m\n1,1,2\n,1,2\n", [], "holds nulls, the first in row 1"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--models", "mm"], "did you mean 'm'?"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--exclude", "mm"], "did you mean 'm'?"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--id-col", "unique"], "did you mean 'unique_id'?"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--models", "m", "--exclude", "m"], "--exclude"),
        ("f.csv", "unique_id;y|m\na;1|2\n", [], "has ';' and '|' in its first line"),
        (
            "f.csv",
            "unique_id;y;m\na;1;2\n",
            ["--delimiter", "|"],
            "has ';' in its first line, and no",
        ),
        ("f.csv", "unique_id;y;m,n\na;1;2,5\n", [], "or pass --delimiter, as names hold ';'"),
        ("f.csv", "unique_id;y;m\na;1;2\n", ["--delimiter", "ab"], "--delimiter 'ab': must be"),
        (
            "f.csv",
            "unique_id;y;m\na;1;2,5\n",
            [],
            "'2,5' in row 0 is text; convert it",
        ),
        ("f.csv", "unique_id;y;m\na;1;2,5\n", [], "if that is a decimal comma, pass --decimal ,"),
        ("f.csv", "unique_id;y;m\na;1,500;2\n", [], "pass --decimal ,"),
        ("f.csv", "unique_id,y,m\na,1\n", [], "Expected 3 columns, got 2"),
        ("f.csv", b"unique_id,y,m\n\xe9,1,2\n", [], "'unique_id' holds text that is not in UTF-8"),
        ("f.csv", b"unique_id,y,\xe9\na,1,2\n", [], "is not in UTF-8"),
        ("f.csv", "unique_id,y,m,m\na,1,2,3\n", [], "more than once"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--losses", "mad"], "unknown loss"),
        (
            *("f.csv", "unique_id,y,m\na,1,2\n", ["--losses", "huber:delta=0"]),
            "delta of huber must be greater than 0",
        ),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["-o", "x.xlsx"], "x.xlsx"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--cutoff-col", "cut"], "'cut'"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--device", "cuda:99"], "cuda:99"),
        ("f.csv", "unique_id,y,m\na,1,2\n", ["--missing", "no"], "no"),
        (
            "f.csv",
            "unique_id,y,m\na,1,2\nb,,2\n",
            [],
            "series unique_id='b': element 0 of y in row 1 is missing",
        ),
        ("f.csv", "unique_id,y,m\na,1,\n", [], "element 0 of m in row 0 is missing"),
    ],
)
def test_mistakes_are_explained(tmp_path, name, content, flags, expected):
    path = name if "://" in name else tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, err = cli("score", path, *flags)
    usage = (
        "--exclude",
        "unknown loss",
        "delta of huber",
        "x.xlsx",
        "cuda:99",
        "nowhere",
        "--delimiter",
    )
    assert status == (2 if expected.startswith(usage) or expected == "no" else 1)
    assert out == ""
    assert expected in err
    assert "Traceback" not in err


def test_a_path_that_is_not_one_file_gets_a_hint(tmp_path):
    (tmp_path / "f.parquet").mkdir()
    (tmp_path / "f.parquet" / "_SUCCESS").write_text("")
    for paths, expected in (
        ([tmp_path / "f.parquet"], "f.parquet: holds no file that ends in .parquet"),
        (["/dev/stdin"], "/dev/stdin"),
    ):
        status, out, err = cli("score", *paths)
        assert (status, out) == (len(paths), "")
        assert expected in err


def test_an_unwritable_output_is_refused_before_any_work(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for output, expected in (("folder.csv", "is a folder"), ("absent/o.csv", "there is no folder")):
        _, _, err = cli("score", tmp_path / "absent.csv", "-o", tmp_path / output)
        assert f"{tmp_path / output}: {expected}" in err


@pytest.mark.parametrize("written", ["o.csv", "o.parquet", "o.arrow", "o.arrows"])
def test_a_read_error_names_the_input(tmp_path, written):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"unique_id": ["a"], "y": [1.0], "m": [2.0]}), path)
    path.write_bytes(b"PAR1" + b"\xff" * 60 + path.read_bytes()[64:])
    status, _, err = cli("score", path, "-o", tmp_path / written)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {path}: ")
    assert [file.name for file in tmp_path.iterdir()] == ["f.parquet"]


def test_a_write_error_names_the_output(tmp_path):
    path, output = tmp_path / "f.parquet", tmp_path / "o.csv"
    zone = pa.array([0], pa.timestamp("us", "Mars/Olympus"))  # which CSV needs, and nobody knows
    pq.write_table(pa.table({"unique_id": ["a"], "cutoff": zone, "y": [1.0], "m": [2.0]}), path)
    status, _, err = cli("score", path, "-o", output)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {output}: ")
    assert cli("score", path, "-o", tmp_path / "o.parquet")[0] == 0


def test_the_file_itself_is_no_output(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,y,m\na,1,2\n")
    status, _, err = cli("score", path, "-o", path)
    assert (status, path.read_text()) == (2, "unique_id,y,m\na,1,2\n")
    assert "name another output" in err


def test_ids_of_a_csv_are_text(tmp_path):
    path, output = tmp_path / "f.csv", tmp_path / "scores.parquet"
    path.write_text("unique_id,cutoff,y,m\n007,01,1,2\n-1,1,1,2\n-2,1,1,2\n")
    assert cli("score", path, "-o", output)[0] == 0
    scores = pq.read_table(output)
    assert scores["unique_id"].to_pylist() == ["007", "-1", "-2"]
    assert scores["cutoff"].to_pylist() == ["01", "1", "1"]


def test_ids_that_share_a_hash_are_two_series(tmp_path):
    assert hash(-1) == hash(-2)
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"unique_id": [-1, -2], "y": [1.0, 1], "m": [1.0, 2]}), path)
    assert cli("score", path)[0] == 0


def test_the_first_block_of_a_csv_does_not_decide_the_types(tmp_path, monkeypatch):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", 60)
    path, output = tmp_path / "f.csv", tmp_path / "scores.parquet"
    rows = [f"{n},{n},{n + 1},\n" for n in range(40)] + ["x,0.5,1.5,7.5\n"]
    path.write_text("unique_id,y,m,late\n" + "".join(rows))
    status, _, err = cli("score", path, "--missing", "skip", "-o", output)
    assert (status, err.splitlines()[0]) == (0, "scored as models: m, late")
    assert pq.read_table(output).to_pylist()[-1]["mae"] == 7.0


def test_columns_that_are_no_forecasts_are_left_out(tmp_path):
    path = tmp_path / "f.parquet"
    columns = {"unique_id": ["a"], "y": [1.0], "m": [2.0], "__index_level_0__": [0]}
    pq.write_table(pa.table({**columns, "empty": pa.nulls(1), "m-hi-95": [3.0]}), path)
    status, out, _ = cli("score", path, "--missing", "skip")
    assert status == 0
    assert "empty" in out  # a model of which every element is missing
    assert not any(name in out for name in ("index_level", "m-hi"))


def test_a_failed_run_leaves_no_output(tmp_path):
    path, output = tmp_path / "f.csv", tmp_path / "scores.csv"
    path.write_text("unique_id,y,m\na,1,2\nb,,2\n")
    assert cli("score", path, "-o", output)[0] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["f.csv"]


def test_scoring_a_small_file_imports_nothing_that_takes_long():
    code = (
        "import sys; from loss_scoring.service.cli import run\n"
        "sys.argv = ['loss-scoring', 'score', sys.argv[1], '--missing', 'skip']\n"
        "try:\n    run()\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print({'fastapi', 'numba', 'pandas', 'pydantic_settings', 'rich', 'torch', 'uvicorn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, EXAMPLE], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_losses_in_a_real_process():
    listed = subprocess.run([LOSS_SCORING, "losses"], capture_output=True, text=True, check=True)
    assert "block_denom_grad=true" in listed.stdout
    assert "(greater than 0)" in listed.stdout


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--port", "70000"], "port"),
        (["--device", "tpu"], "device"),
        (["--max-queued-elements", "1"], "max_queued_elements must be at least twice max"),
        (["--device", "cuda:7"], "CUDA"),
    ],
)
def test_invalid_flags_of_serve_are_refused(flags, expected):
    wrong = CliRunner().invoke(app, ["serve", *flags])
    assert wrong.exit_code == 2
    assert expected in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_what_is_read_ahead_at_an_address_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "f.parquet"
    numbers = np.random.default_rng(0).normal(size=1 << 20)
    pq.write_table(pa.table({"y": numbers}), path, row_group_size=1 << 16)
    content = path.read_bytes()
    monkeypatch.setattr("loss_scoring.service.cli.files._READ_AHEAD_BYTES", 2 << 20)
    source = open_source(
        File("s3://b/f", path.name, lambda: pa.PythonFile(io.BytesIO(content), "r"))
    )
    most = rows = 0
    tracemalloc.start()
    for batch in source.read(["y"]):
        most = max(most, tracemalloc.get_traced_memory()[0])
        rows += len(batch)
    tracemalloc.stop()
    assert rows == len(numbers)
    assert most < len(content) / 2


def test_a_file_without_row_groups_has_no_rows(tmp_path):
    path = tmp_path / "f.parquet"
    with pq.ParquetWriter(path, pa.schema({"y": pa.float64()})):
        pass
    assert list(open_source(File.at(path)).read(["y"])) == []

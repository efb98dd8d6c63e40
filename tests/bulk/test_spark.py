"""Scores and leaderboards on real Spark, against the whole table at once."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.core.table import (
    TableError,
    leaderboard,
    leaderboard_spark,
    score_spark,
    score_table,
)

pytest.importorskip("pyspark", reason="make test-spark installs it in an environment of its own")
pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
ORDER = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "3")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "100")  # cuts through series
            .getOrCreate()
        )
        yield session
        session.stop()


@pytest.fixture(scope="module")
def table():
    table = pq.read_table(ROOT / "examples/data/forecasts.parquet")
    for name in ("cutoff", "ds"):  # Spark reads no nanoseconds
        column = table[name].cast(pa.timestamp("us"))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@pytest.fixture(scope="module")
def frame(spark, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("spark") / "forecasts.parquet"
    pq.write_table(table, path)
    return spark.read.parquet(str(path))


@pytest.mark.parametrize("gradients", [False, True])
def test_scores_equal_those_of_the_whole_table(frame, table, gradients):
    options = {"missing": "skip", "gradients": gradients, "losses": ["mae", "smape"]}
    scores = score_spark(frame, partitions=4 if gradients else None, **options).toArrow()
    want = score_table(table, **options).sort_by(ORDER)
    assert scores.cast(want.schema).sort_by(ORDER).equals(want)


@pytest.mark.parametrize(
    "options", [{"baseline": "SeasonalNaive"}, {"by": "cutoff", "n_resamples": 10}]
)
def test_leaderboards_have_the_bits_of_the_whole(frame, table, options):
    losses = ["smape", "mae"]
    got = leaderboard_spark(score_spark(frame, missing="skip"), losses, **options)
    want = leaderboard(score_table(table, missing="skip"), losses, **options)
    table_ = got.to_arrow()
    assert table_.cast(want.to_arrow().schema).equals(want.to_arrow())
    assert got.notes == want.notes


def test_faults_come_before_a_shuffle(frame):
    with pytest.raises(TableError, match="'store' is absent"):
        score_spark(frame, group_by=["store"])


def test_series_in_parts_are_noticed(frame):
    from pyspark.errors import PythonException

    scores = score_spark(frame.repartition(5), shuffle=False, missing="skip")
    with pytest.raises(PythonException, match="are both model="):
        leaderboard_spark(scores, "mae")


def test_partitions_that_spark_wrote_are_read_by_the_command_line(frame, table, tmp_path):
    frame.write.partitionBy("cutoff").parquet(str(tmp_path / "parts"))
    command = [sys.executable, "-c", "from loss_scoring.service.cli import run; run()", "score"]
    command += [
        tmp_path / "parts",
        "--sort",
        "--missing",
        "skip",
        "-o",
        tmp_path / "scores.parquet",
    ]
    subprocess.run(command, check=True, capture_output=True)
    got = pq.read_table(tmp_path / "scores.parquet").sort_by(ORDER)
    want = score_table(table, missing="skip")
    spelled = pc.strftime(want["cutoff"], format="%Y-%m-%d %H:%M:%S")
    want = want.set_column(1, "cutoff", pc.replace_substring(spelled, ".000000", "")).sort_by(ORDER)
    assert got["cutoff"].equals(want["cutoff"])
    assert got["length"].equals(want["length"])
    assert pc.all(pc.less_equal(pc.abs(pc.subtract(got["mae"], want["mae"])), 1e-9)).as_py()

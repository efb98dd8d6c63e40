"""The example for Spark on real Spark, against the whole table at once."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.core.table import group_rows, score_table

pytest.importorskip("pyspark", reason="make test-spark installs it in an environment of its own")
pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
ORDER = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]


@pytest.fixture
def spark(monkeypatch):
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'examples'}")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "100")  # cuts through series
        .getOrCreate()
    )
    yield session
    session.stop()


def test_scores_equal_those_of_the_whole_table(spark, tmp_path):
    from spark import KEYS, score

    table = pq.read_table(ROOT / "examples/data/forecasts.parquet")
    for name in ("cutoff", "ds"):  # Spark reads no nanoseconds
        column = table[name].cast(pa.timestamp("us"))
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "forecasts.parquet")
    frame = spark.read.parquet(str(tmp_path / "forecasts.parquet"))
    scores = score(frame, partitions=3, missing="skip").toArrow()
    assert len(group_rows(scores.select([*KEYS, "model"]))) == scores.num_rows
    want = score_table(table, missing="skip")
    assert scores.cast(want.schema).sort_by(ORDER).equals(want.sort_by(ORDER))

"""The example for Ray Data on real Ray, against the whole table at once."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from loss_scoring.core.table import score_table

ray = pytest.importorskip("ray", reason="make test-ray installs it in an environment of its own")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
ORDER = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(ROOT / "examples"))
    # A worker imports what the driver does, from where the driver does.
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}"}},
    )
    import ray_data

    yield ray_data
    ray.shutdown()
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def table():
    return pq.read_table(ROOT / "examples/data/forecasts.parquet")


def collected(dataset) -> pa.Table:
    parts = ray.get(dataset.to_arrow_refs())
    return pa.concat_tables([part for part in parts if part.num_rows]).sort_by(ORDER)


def test_scores_equal_those_of_the_whole_table(example, table):
    blocks = [table.slice(start, 700) for start in range(0, len(table), 700)]  # cuts series
    options = {"missing": "skip", "gradients": True}
    dataset = ray.data.from_arrow(blocks)
    scores = collected(example.score(dataset, partitions=5, **options))
    example.check_whole(scores)
    want = score_table(table, **options).sort_by(ORDER)
    assert scores.select(want.column_names).cast(want.schema).equals(want)


def test_series_in_parts_are_noticed(example, table):
    halves = [table.slice(0, 1001), table.slice(1001)]
    scorer = example.ScoreWholeSeries(example.KEYS, "ds", missing="skip")
    with pytest.raises(ValueError, match="more than one batch"):
        example.check_whole(pa.concat_tables([scorer(half) for half in halves]))

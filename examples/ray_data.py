"""Score forecasts on Ray Data, whole tables at a time: ``python examples/ray_data.py FILES...``.

Every row of a series must come in one batch, so the data set is first partitioned by the columns
that name a series; see docs/bulk.md. With ``--num-gpus 1`` each actor owns a GPU.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from loss_scoring.core.table import group_rows, score_table

KEYS = ("unique_id", "cutoff")


class ScoreWholeSeries:
    """Scores blocks that hold every row of each of their series.

    Args:
        keys: The columns that name a series.
        time: The column to sort a series by: a shuffle does not keep the order of rows.
        options: Of ``score_table``.
    """

    def __init__(self, keys: Sequence[str], time: str, **options: Any) -> None:
        self.keys, self.time, self.options = list(keys), time, options

    def __call__(self, block: pa.Table) -> pa.Table:
        if block.num_rows == 0:  # more partitions than series
            return pa.table({})
        ordered = block.sort_by([(name, "ascending") for name in (*self.keys, self.time)])
        return score_table(ordered, group_by=self.keys, **self.options)


def score(  # noqa: PLR0913 - one choice each, all with a default
    dataset: ray.data.Dataset,
    *,
    keys: Sequence[str] = KEYS,
    time: str = "ds",
    partitions: int = 8,
    actors: int = 1,
    num_gpus: float = 0,
    **options: Any,
) -> ray.data.Dataset:
    """Return one row a series and model, in no particular order.

    Args:
        dataset: One row an element.
        keys: The columns that name a series.
        time: The column that orders one.
        partitions: How many blocks to score; each must fit in the memory of an actor.
        actors: How many score at once.
        num_gpus: Of each actor; 1 gives it a device of its own.
        options: Of ``score_table``, such as ``missing="skip"``.
    """
    device = "cuda" if num_gpus else "cpu"
    return dataset.repartition(partitions, keys=list(keys)).map_batches(
        ScoreWholeSeries,
        fn_constructor_kwargs={"keys": keys, "time": time, "device": device, **options},
        batch_size=None,  # a block as it is: any other size cuts through series
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_gpus=num_gpus,
    )


def check_whole(scores: pa.Table, keys: Sequence[str] = KEYS) -> None:
    """Raise if a series was scored in parts: its name then stands more than once."""
    if len(group_rows(scores.select([*keys, "model"]))) < scores.num_rows:
        raise ValueError("some series came in more than one batch; partition by its keys first")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", help="Parquet, in the long form")
    parser.add_argument("--num-gpus", type=float, default=0, help="of each actor")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("-o", "--output", help="folder for the scores, as Parquet")
    flags = parser.parse_args()
    dataset = score(
        ray.data.read_parquet(flags.files),
        partitions=flags.partitions,
        actors=flags.actors,
        num_gpus=flags.num_gpus,
        missing="skip",
    ).materialize()
    if flags.output:
        dataset.write_parquet(flags.output)
    parts = ray.get(dataset.to_arrow_refs())
    scores = pa.concat_tables(part for part in parts if part.num_rows)
    check_whole(scores)
    # With the counts: models that miss series are not to be compared by their means.
    found = [("mae", "mean"), ("smape", "mean"), ("mae", "count")]
    print(scores.group_by("model").aggregate(found).to_pylist())


if __name__ == "__main__":
    main()

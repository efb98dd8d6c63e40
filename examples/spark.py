"""Score forecasts on Spark, a partition at a time: ``spark-submit examples/spark.py FILES...``.

Spark hands a partition over in batches of some thousand rows, which cut through series. So the
frame is partitioned by the columns that name a series, and a partition is scored as one table; see
docs/bulk.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

from loss_scoring.core import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.table import score_table

KEYS = ("unique_id", "cutoff")


def score(
    frame: DataFrame,
    *,
    keys: Sequence[str] = KEYS,
    time: str = "ds",
    partitions: int = 8,
    losses: Sequence[str] = DEFAULT_LOSSES,
    **options: Any,
) -> DataFrame:
    """Return one row a series and model, in no particular order.

    Args:
        frame: One row an element.
        keys: The columns that name a series.
        time: The column that orders one: a shuffle does not keep the order of rows.
        partitions: How many tables to score; each must fit in the memory of an executor.
        losses: Names of losses.
        options: More of ``score_table``'s, such as ``missing="skip"``; Spark reads no large lists,
            so gradients cannot be among the answers.
    """

    def whole(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = list(batches)
        if parts:
            table = pa.Table.from_batches(parts)
            yield from score_table(table, group_by=keys, losses=losses, **options).to_batches()

    fields = [frame.schema[key] for key in keys]
    fields += [StructField("model", StringType()), StructField("length", LongType())]
    fields += [StructField(name, DoubleType()) for name in losses]
    fields += [
        StructField(f"{name}_masked", LongType()) for name in losses if LOSSES[name].can_be_masked
    ]
    return (
        frame.repartition(partitions, *keys)
        .sortWithinPartitions(*keys, time)
        .mapInArrow(whole, StructType(fields))
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", help="Parquet, in the long form")
    parser.add_argument("--partitions", type=int, default=8)
    flags = parser.parse_args()
    spark = SparkSession.builder.appName("loss-scoring").getOrCreate()
    scores = score(spark.read.parquet(*flags.files), partitions=flags.partitions, missing="skip")
    scores.groupBy("model").avg("mae", "smape").show()
    spark.stop()


if __name__ == "__main__":
    main()

"""Score forecasts on Spark, where they are: ``spark-submit examples/spark.py FILES...``.

See docs/bulk.md.
"""

import argparse

from pyspark.sql import SparkSession

from loss_scoring.core.table import leaderboard_spark, score_spark


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", help="Parquet, in the long form")
    flags = parser.parse_args()
    spark = SparkSession.builder.appName("loss-scoring").getOrCreate()
    forecasts = spark.read.parquet(*flags.files)
    scores = score_spark(forecasts, missing="skip").cache()
    print(leaderboard_spark(scores, "smape"))
    spark.stop()


if __name__ == "__main__":
    main()

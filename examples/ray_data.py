"""Score forecasts on Ray Data, where they are: ``python examples/ray_data.py FILES...``.

Actors have a GPU each where the cluster has GPUs; see docs/bulk.md.
"""

import argparse

import ray

from loss_scoring.core.table import leaderboard_ray, score_ray


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", help="Parquet, in the long form")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("-o", "--output", help="folder for the scores, as Parquet")
    flags = parser.parse_args()
    forecasts = ray.data.read_parquet(flags.files)
    scores = score_ray(forecasts, partitions=flags.partitions, missing="skip").materialize()
    if flags.output:
        scores.write_parquet(flags.output)
    print(leaderboard_ray(scores, "smape", partitions=flags.partitions))


if __name__ == "__main__":
    main()

"""Cross-validate models on real series, score them at a running service, print a leaderboard.

``python examples/leaderboard.py --url http://127.0.0.1:8000`` fits with statsforecast, in an
environment with ``pip install statsforecast ./lossclient``; with ``--recorded`` the forecasts are
those that lie in ``examples/data``, and lossclient and pandas are enough.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from lossclient import Client, leaderboard

DATA = Path(__file__).resolve().parent / "data" / "forecasts.parquet"
KEYS = ["unique_id", "cutoff"]
PANELS = (
    # series that begin so, frequency, season, horizon
    ("us_macro", "QS", 4, 4),
    (("elec_equip", "elnino"), "MS", 12, 12),
    (("nile", "sunspots"), "YS", 1, 4),
)


def actuals() -> pd.DataFrame:
    """Return the series themselves: windows overlap, so each row once."""
    frame = pd.read_parquet(DATA, columns=["unique_id", "ds", "y"])
    return frame.drop_duplicates(["unique_id", "ds"]).sort_values(["unique_id", "ds"])


def cross_validate(series: pd.DataFrame) -> pd.DataFrame:
    """Return forecasts of rolling origins, as statsforecast lays them out."""
    from statsforecast import StatsForecast  # noqa: PLC0415 - not needed with --recorded
    from statsforecast import models as sf  # noqa: PLC0415

    parts = []
    for names, frequency, season, horizon in PANELS:
        panel = series[series["unique_id"].str.startswith(names)]
        models = [
            sf.Naive(),
            sf.SeasonalNaive(season_length=season),
            sf.WindowAverage(window_size=season),
            sf.AutoETS(season_length=season),
            sf.DynamicOptimizedTheta(season_length=season),
            sf.AutoARIMA(season_length=season),
        ]
        forecaster = StatsForecast(models=models, freq=frequency)
        parts.append(forecaster.cross_validation(h=horizon, df=panel, n_windows=3))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is")
    parser.add_argument("--recorded", action="store_true", help="fit nothing")
    arguments = parser.parse_args()
    began = time.perf_counter()
    forecasts = pd.read_parquet(DATA) if arguments.recorded else cross_validate(actuals())
    fitted = time.perf_counter()
    with Client(arguments.url) as client:
        scores = client.score(forecasts, missing="skip")
    scored = time.perf_counter()
    models = scores["model"].nunique()
    print(
        f"{len(forecasts)} rows, {forecasts['unique_id'].nunique()} series, "
        f"{len(forecasts[KEYS].drop_duplicates())} windows, {models} models"
    )
    print(f"forecasts: {fitted - began:.1f} s; scores: {scored - fitted:.3f} s, {arguments.url}\n")
    print(leaderboard(scores, "smape", baseline="SeasonalNaive"))


if __name__ == "__main__":
    main()

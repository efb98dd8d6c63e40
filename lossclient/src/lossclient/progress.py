"""A progress bar, where somebody sees it."""

from tqdm.auto import tqdm

from lossclient.forecasts import Forecasts

_SHOWN_AFTER_S = 0.5


def progress_bar(forecasts: Forecasts, show: bool | None) -> "tqdm[object]":  # noqa: FBT001
    """Return a bar over all series of all models.

    Args:
        forecasts: The series.
        show: None shows it on a terminal, after half a second.
    """
    return tqdm(
        total=len(forecasts) * len(forecasts.predictions),
        desc="score",
        unit=" series",
        unit_scale=True,
        leave=False if show is None else None,
        disable=None if show is None else not show,
        delay=_SHOWN_AFTER_S if show is None else 0,
    )

"""A progress bar, where somebody sees it."""

import os
import threading

from tqdm.auto import tqdm

from lossclient.forecasts import Forecasts

_SHOWN_AFTER_S = 0.5


class _Bar(tqdm):  # type: ignore[misc] # tqdm has no types
    """A bar that a fork does not break.

    tqdm has one lock for all bars, shown or not; a child that was forked while another thread held
    it would wait for ever. And it starts a thread, to refresh bars that are rarely updated: ours
    are not, as ``miniters`` is 0.
    """

    monitor_interval = 0


def _renew_lock() -> None:
    _Bar.set_lock(threading.RLock())


_renew_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def progress_bar(forecasts: Forecasts, show: bool | None) -> "tqdm[object]":  # noqa: FBT001
    """Return a bar over all series of all models.

    Args:
        forecasts: The series.
        show: None shows it on a terminal, after half a second.
    """
    return _Bar(
        total=len(forecasts) * len(forecasts.predictions),
        desc="score",
        unit=" series",
        unit_scale=True,
        leave=False if show is None else None,
        disable=None if show is None else not show,
        delay=_SHOWN_AFTER_S if show is None else 0,
        miniters=0,
    )

"""The mean absolute scaled error: the scale is a seasonal naive forecast's, in the history."""

from loss_scoring.core.losses import mae
from loss_scoring.core.losses.loss import Loss

MASE = Loss(
    "mase",
    "mean absolute scaled error",
    "mean(|y - p|) / scale, null where the scale is 0",
    "sign(p - y) / (T scale)",
    source="Hyndman and Koehler (2006), doi:10.1016/j.ijforecast.2006.03.001",
    module="",
    term=mae.term,
    slope=mae.slope,
    scaled=True,
)

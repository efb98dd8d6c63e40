"""The root mean squared scaled error."""

from loss_scoring.core.losses import mse
from loss_scoring.core.losses.loss import Loss

RMSSE = Loss(
    "rmsse",
    "root mean squared scaled error",
    "sqrt(mean((y - p)^2)) / scale, null where the scale is 0",
    "(p - y) / (T rmse scale), 0 where the loss is 0",
    source="Makridakis et al. (2022), doi:10.1016/j.ijforecast.2021.11.013",
    module="",
    term=mse.term,
    slope=mse.slope,
    is_steep=True,
    root=True,
    scaled=True,
)

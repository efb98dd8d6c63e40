"""The root of the mean squared error."""

from loss_scoring.core.losses import mse
from loss_scoring.core.losses.loss import Loss

RMSE = Loss(
    "rmse",
    "root mean squared error",
    "sqrt(mean((y - p)^2))",
    "(p - y) / (T rmse), 0 where the loss is 0",
    source="sklearn.metrics.root_mean_squared_error",
    module="RMSELoss",
    term=mse.term,
    slope=mse.slope,
    is_steep=True,
    root=True,
)

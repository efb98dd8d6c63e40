"""Client of the loss-scoring service: takes the frame of forecasts you have, gives losses back."""

from lossclient.async_client import AsyncClient
from lossclient.base_client import __version__
from lossclient.client import Client
from lossclient.columns import LeftOutWarning
from lossclient.exceptions import (
    BadRequest,
    DeadlineExceeded,
    InvalidInput,
    InvalidValues,
    LossClientError,
    Overloaded,
    ServiceError,
    TooLarge,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    ValueFault,
)
from lossclient.retries import Retries
from lossclient.series import Scores

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "DeadlineExceeded",
    "InvalidInput",
    "InvalidValues",
    "LeftOutWarning",
    "LossClientError",
    "Overloaded",
    "Retries",
    "Scores",
    "ServiceError",
    "TooLarge",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "ValueFault",
    "__version__",
]

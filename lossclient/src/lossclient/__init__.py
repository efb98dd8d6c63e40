"""Client of the loss-scoring service: takes the frame of forecasts you have, gives losses back."""

from lossclient.async_client import AsyncClient
from lossclient.base_client import __version__
from lossclient.client import Client
from lossclient.comparison import (
    Check,
    CheckError,
    Leaderboard,
    NotComparableError,
    ScoresError,
    WorseError,
    check,
    leaderboard,
    pairwise,
)
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
from lossclient.joining import UnmatchedWarning
from lossclient.joining.roles import LeftOutWarning
from lossclient.retries import Retries
from lossclient.series import Scores

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Check",
    "CheckError",
    "Client",
    "DeadlineExceeded",
    "InvalidInput",
    "InvalidValues",
    "Leaderboard",
    "LeftOutWarning",
    "LossClientError",
    "NotComparableError",
    "Overloaded",
    "Retries",
    "Scores",
    "ScoresError",
    "ServiceError",
    "TooLarge",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnmatchedWarning",
    "ValueFault",
    "WorseError",
    "__version__",
    "check",
    "leaderboard",
    "pairwise",
]

import pickle

import pytest

import lossclient
from lossclient import InvalidValues, ServiceError, ValueFault

PUBLIC = [getattr(lossclient, name) for name in lossclient.__all__]
KINDS = [
    kind
    for kind in PUBLIC
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, lossclient.CheckError)  # made of rows; see tests/core
]


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_survive_pickling(kind):
    """A pipeline raises them in a worker and sees them in its parent."""
    error = kind("no", status=418, retryable=True) if issubclass(kind, ServiceError) else kind("no")
    error.request_id = "r1"
    if isinstance(error, InvalidValues):
        error.errors = (ValueFault("/target/0/1", "is missing", id="a", side="target"),)
        error.count = 7
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was made here
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_builtin_types_catch_them():
    assert issubclass(lossclient.InvalidInput, ValueError)
    assert issubclass(lossclient.DeadlineExceeded, TimeoutError)
    assert issubclass(lossclient.LeftOutWarning, UserWarning)
    assert len(KINDS) == 15


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (ValueFault("?losses", "is odd"), "?losses is odd"),
        (
            ValueFault("/y/3", "is missing", id=4, side="target", position=1),
            "series 4: target 1 is missing",
        ),
        (
            ValueFault("/x", "is bad", "a", "2026-01-01", "ETS", "prediction", 3, 77),
            "series 'a' at cutoff 2026-01-01, model ETS: prediction 3 (row 77) is bad",
        ),
        (
            ValueFault("/0/3", "is bad", "a", side="prediction", position=3, index=(1, 1)),
            "series 'a': prediction [1, 1] is bad",
        ),
    ],
)
def test_faults_in_words(fault, text):
    assert str(fault) == text

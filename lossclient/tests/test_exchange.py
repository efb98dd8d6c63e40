"""Every decision on the way from a part to its scores, with a clock that only pauses move."""

import math
from datetime import UTC, datetime

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fake_service import answer, problem

from lossclient import (
    BadRequest,
    DeadlineExceeded,
    InvalidValues,
    Overloaded,
    TooLarge,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    wire,
)
from lossclient.exchange import Pause, Post, Room, Rules, Surroundings, exchange
from lossclient.forecasts import Forecasts, Key
from lossclient.options import ScoreOptions
from lossclient.problems import Reply
from lossclient.retries import Retries
from lossclient.wire import Part


class Clock:
    """Stands still but for pauses, and for what a request is said to take."""

    def __init__(self):
        self.now = 100.0

    def surroundings(self):
        return Surroundings(
            now=lambda: self.now,
            today=lambda: datetime(2026, 11, 25, tzinfo=UTC),
            chance=lambda: 0.5,
        )


FORECASTS = Forecasts(
    offsets=np.array([0, 2, 3, 6, 10]),
    target=np.arange(1.0, 11),
    models=("Naive", "Theta"),
    predictions=(np.arange(10.0), np.arange(2.0, 12)),
    key_of=lambda series: Key("abcd"[series], 2020 + series),
    rows=np.arange(10)[::-1].copy(),
    in_rows=True,
)
ALL = Part(0, 0, 4)


def play(outcomes, part=ALL, *, took_s=0.0, clock=None, **rules):
    """Run an exchange against scripted outcomes; returns (tables or None, posts, pauses, error).

    An outcome is a response, an exception, or a function from the request to a response.
    """
    clock = clock or Clock()
    rules = {"options": ScoreOptions(), "retries": Retries(), "room": Room(), **rules}
    steps = exchange(FORECASTS, part, Rules(surroundings=clock.surroundings(), **rules))
    outcomes = iter(outcomes)
    posts, pauses = [], []
    reply = None
    try:
        while True:
            step = steps.send(reply)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                clock.now += step.seconds
                reply = None
                continue
            assert isinstance(step, Post)
            posts.append(step)
            clock.now += took_s
            outcome = next(outcomes)
            if callable(outcome):
                url = httpx.URL("http://x/score", params=step.query)
                outcome = outcome(httpx.Request("POST", url, content=bytes(step.body)))
            if isinstance(outcome, httpx.Response):
                outcome = Reply(outcome.status_code, outcome.headers, outcome.content)
            reply = outcome
    except StopIteration as end:
        return end.value, posts, pauses, None
    except Exception as error:  # noqa: BLE001 - the tests look at it
        return None, posts, pauses, error


def test_scores_at_once():
    tables, posts, pauses, _ = play([answer])
    (table,) = tables
    assert table.column_names == ["length", "mae", "mape", "smape", "mape_masked", "smape_masked"]
    assert table["length"].to_pylist() == [2, 1, 3, 4]
    assert table["mae"].to_pylist() == [1, 1, 1, 1]
    assert (len(posts), pauses) == (1, [])
    assert posts[0].within_s is None
    assert "X-Request-Timeout-Ms" not in posts[0].headers


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("silence"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("silence"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("cut off"),
        *(problem(status) for status in (429, 502, 503, 504)),
        httpx.Response(502, content=b"<html>Bad Gateway</html>"),
        problem(408, retryable=True),
        problem(500, retryable=True),
    ],
)
def test_what_may_help_is_tried_again(outcome):
    tables, posts, pauses, error = play([outcome, outcome, answer])
    assert error is None
    assert len(tables) == 1
    assert pauses == [0.125, 0.25]
    assert len({post.headers["X-Request-Id"] for post in posts}) == 1  # one line in a log


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(400), BadRequest),
        (problem(401), Unauthorized),
        (problem(403), Unauthorized),
        (problem(404), BadRequest),
        (problem(406), BadRequest),
        (problem(422), InvalidValues),
        (problem(431), BadRequest),
        (problem(500), Unavailable),
        (httpx.Response(500, content=b"oops"), Unavailable),
        (httpx.Response(302, headers={"location": "/login"}), UnexpectedAnswer),
        (httpx.Response(200, content=b"<html>Welcome</html>"), UnexpectedAnswer),
        (
            httpx.Response(
                200, content=b"x", headers={"content-type": "application/vnd.apache.arrow.stream"}
            ),
            UnexpectedAnswer,
        ),
        (httpx.UnsupportedProtocol("gopher"), TransportError),
        (httpx.DecodingError("no gzip"), TransportError),
    ],
)
def test_what_cannot_help_is_not(outcome, kind):
    _, posts, pauses, error = play([outcome])
    assert type(error) is kind
    assert (len(posts), pauses) == (1, [])


def test_an_answer_for_other_series_is_no_answer():
    def short(request):
        body = wire.encode(FORECASTS, Part(0, 0, 3))
        return answer(httpx.Request("POST", request.url, content=bytes(body)))

    _, _, _, error = play([short])
    assert isinstance(error, UnexpectedAnswer)
    assert "3 rows for 4" in str(error)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(503), Overloaded),
        (problem(429), Overloaded),
        (problem(502), Unavailable),
        (problem(504), DeadlineExceeded),
        (problem(500, retryable=True), Unavailable),
        (httpx.ConnectError("refused"), TransportError),
    ],
)
def test_it_gives_up_with_what_the_last_attempt_died_of(outcome, kind):
    _, posts, pauses, error = play([outcome] * 9, retries=Retries(attempts=3))
    assert type(error) is kind
    assert (len(posts), len(pauses)) == (4, 3)
    assert error.request_id


def test_retry_after_is_the_least():
    busy = problem(503, headers={"retry-after": "3"})
    dated = problem(503, headers={"retry-after": "Wed, 25 Nov 2026 00:00:09 GMT"})
    _, _, pauses, error = play([busy, dated, answer])
    assert error is None
    assert pauses == [3.125, 9.25]
    _, posts, _, error = play([problem(503, headers={"retry-after": "86400"})])
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 86400
    assert len(posts) == 1


def test_the_deadline_bounds_all_attempts_and_each_is_told_what_is_left():
    _, posts, pauses, error = play(
        [problem(503)] * 9, took_s=2.0, deadline=105.0, retries=Retries(attempts=50)
    )
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, Overloaded)
    assert [post.headers["X-Request-Timeout-Ms"] for post in posts] == ["5000", "2875", "625"]
    assert [post.within_s for post in posts] == [5.0, 2.875, 0.625]
    assert pauses == [0.125, 0.25]


def test_it_does_not_wait_for_what_comes_too_late():
    _, posts, pauses, error = play([problem(503, headers={"retry-after": "10"})], deadline=105.0)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, Overloaded)
    assert (len(posts), pauses) == (1, [])


def test_an_attempt_that_outlives_the_deadline_is_the_cause():
    _, posts, pauses, error = play([httpx.ReadTimeout("silence")], took_s=6.0, deadline=105.0)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, TransportError)
    assert (len(posts), pauses) == (1, [])


def test_nothing_is_sent_after_the_deadline():
    _, posts, _, error = play([answer], deadline=100.0)
    assert isinstance(error, DeadlineExceeded)
    assert not posts


def refuse_over(elements):
    def respond(request):
        table = pa.ipc.open_stream(request.content).read_all()
        sent = len(table["target"].combine_chunks().flatten())
        return problem(413) if sent > elements else answer(request)

    return respond


def test_what_is_too_large_is_halved_and_remembered():
    room = Room()
    tables, posts, pauses, error = play([refuse_over(5)] * 9, room=room)
    assert error is None
    assert [length for table in tables for length in table["length"].to_pylist()] == [2, 1, 3, 4]
    assert pauses == []
    assert len(posts) == 5  # 10 elements, refused; 6, refused; 3, 3 and 4
    assert room.most == (6 * 16 + 3 * 16) // 2

    _, posts, _, error = play([refuse_over(5)] * 9, Part(1, 0, 4), room=room)
    assert error is None
    assert len(posts) == 4  # none of them refused


def test_one_series_that_is_too_long_teaches_nothing_about_the_others():
    room = Room()
    _, posts, _, error = play([refuse_over(3)] * 9, Part(1, 2, 4), room=room)
    assert isinstance(error, TooLarge)
    assert len(posts) == 3
    assert room.most == math.inf


def test_a_single_series_cannot_be_halved():
    _, _, _, error = play([refuse_over(3)] * 9)
    assert isinstance(error, TooLarge)
    assert "'d'" in error.__notes__[0]


def test_faults_are_named_as_the_caller_knows_them():
    errors = [
        {"pointer": "/prediction/1/2", "detail": "of series 1 is missing or not finite"},
        {"pointer": "/target/0/0", "detail": "of series 0 is missing or not finite"},
        {"pointer": "/prediction/0", "detail": "is empty"},
        {"pointer": "?losses", "detail": "unknown loss"},
        {"pointer": "/prediction/99/0", "detail": "of nowhere"},
    ]
    response = problem(422, errors=errors, error_count=30)
    _, _, _, error = play([response], Part(1, 2, 4))
    assert isinstance(error, InvalidValues)
    first, second, third, option, beyond = error.errors
    assert (first.id, first.cutoff, first.model) == ("d", 2023, "Theta")
    assert (first.side, first.position) == ("prediction", 2)
    assert first.row == 9 - 8  # the element at 6 + 2, in rows that were reversed
    assert first.detail == "is missing or not finite"
    assert (second.id, second.side, second.model) == ("c", "target", None)
    assert (third.id, third.position, third.row) == ("c", None, None)
    assert (option.pointer, option.id, option.side) == ("?losses", None, None)
    assert beyond.id is None
    assert error.count == 30
    text = str(error)
    assert "series 'd' at cutoff 2023, model Theta: prediction 2 (row 1) is missing" in text
    assert "and 25 more" in text
    assert "request r1" in text


def test_a_problem_document_may_be_anything():
    for body in (
        b"[]",
        b"nonsense",
        b"\xff",
        b'{"detail": null}',
        b'{"errors": 5, "error_count": "x"}',
        b'{"errors": [3]}',
    ):
        response = httpx.Response(
            422, content=body, headers={"content-type": "application/problem+json"}
        )
        _, _, _, error = play([response])
        assert isinstance(error, InvalidValues)
        assert error.errors == ()


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_bodies_are_compressed_on_request(coding):
    def unpack(request):
        raw = pa.input_stream(pa.BufferReader(request.content), compression=coding).read()
        return answer(httpx.Request("POST", request.url, content=raw))

    tables, posts, _, error = play([unpack], compression=coding)
    assert error is None
    assert tables[0]["mae"].to_pylist() == [1, 1, 1, 1]
    assert posts[0].headers["Content-Encoding"] == coding
    raw = wire.encode(FORECASTS, ALL)
    assert len(wire.compress(memoryview(bytes(100_000)), coding)) < 1000
    assert bytes(wire.compress(raw, coding)) == pa.compress(raw, codec=coding, asbytes=True)

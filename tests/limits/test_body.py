"""A body is timed by what arrived of it, and only if it is not there yet."""

import asyncio
import time

import pytest

from loss_scoring.service.errors import DeadlineError, LateError
from loss_scoring.service.limits.body import BUFFERED, Deadline, Pace, receive_body

PACE = Pace(timeout_s=10, min_bytes_per_s=100)


@pytest.fixture
def receive(monkeypatch):
    """Receive chunks by a clock that is set: one every so many seconds."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def receive(*chunks, every, deadline_s=60, scope=(), headers=()):
        nonlocal now
        now, left = 0.0, list(chunks)

        async def next_message():
            nonlocal now
            now += every
            for _ in range(3):  # lets the event loop see the clock
                await asyncio.sleep(0)
            body = left.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(left)}

        deadline = Deadline(deadline_s)
        given = dict.fromkeys(scope, True), dict(headers), next_message
        return asyncio.run(receive_body(*given, 10**6, PACE, deadline, lambda _: None))

    return receive


@pytest.mark.parametrize("length", [[], [(b"content-length", b"5000")]])
def test_a_body_that_keeps_the_least_pace_is_received(receive, length):
    assert len(receive(*[b"x" * 100] * 50, every=0.9, headers=length)) == 5000


@pytest.mark.parametrize("length", [[], [(b"content-length", b"5000")]])
@pytest.mark.parametrize("size", [0, 50])
def test_a_slower_body_is_refused(receive, length, size):
    with pytest.raises(LateError, match=r"\d+ bytes of the body arrived in 1?\d"):
        receive(*[b"x" * size] * 50, every=1.1, headers=length)


def test_a_body_that_is_there_needs_no_timer(receive):
    whole = receive(
        b"late but whole", every=20, scope=[BUFFERED], headers=[(b"content-length", b"14")]
    )
    assert whole == b"late but whole"
    with pytest.raises(LateError):
        receive(b"late but whole", every=20, headers=[(b"content-length", b"14")])


def test_a_deadline_that_comes_first_is_what_is_missed(receive):
    with pytest.raises(DeadlineError):
        receive(*[b"x" * 100] * 50, every=0.9, deadline_s=5)


def test_a_client_that_sends_nothing_is_noticed():
    async def never():
        await asyncio.Event().wait()

    def limits(timeout_s, deadline_s):
        return 10**6, Pace(timeout_s, 100), Deadline(deadline_s), lambda _: None

    with pytest.raises(LateError, match="0 bytes of the body arrived in"):
        asyncio.run(receive_body({}, {}, never, *limits(0.01, 60)))
    with pytest.raises(DeadlineError):
        asyncio.run(receive_body({}, {}, never, *limits(60, 0.01)))

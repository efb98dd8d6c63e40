"""The queue is shared among clients: places are taken, refused with a reason, and given back."""

import asyncio

import httpx
import pytest

from core import score
from service.engine import Answer
from service.errors import OverloadedError, OverShareError
from service.http.context import ContextMiddleware
from service.http.places import Places
from service.http.score import ScoreEndpoint
from service.settings import Settings
from service.telemetry.metrics import Metrics


def test_a_greedy_client_is_told_so_and_a_newcomer_finds_a_place():
    places = Places(1000)
    with places.taken("greedy", 800):
        with pytest.raises(OverShareError) as refusal, places.taken("greedy", 1):
            raise AssertionError
        assert refusal.value.reason == "queue-share"
        assert refusal.value.retry_after_s >= 1
        with places.taken("newcomer", 160):
            with pytest.raises(OverloadedError) as refusal, places.taken("third", 100):
                raise AssertionError
            assert refusal.value.reason == "queue-full"
            assert refusal.value.retry_after_s >= 1
        with places.taken("third", 100):
            pass
    with places.taken("greedy", 800):
        pass


def test_a_place_is_given_back_whatever_happens_and_a_refusal_takes_none():
    places = Places(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.taken("a", 8):
            raise ZeroDivisionError
        with pytest.raises(OverloadedError), places.taken("a", 9):
            raise AssertionError
    with places.taken("a", 8), places.taken("b", 0):
        pass


def test_the_time_to_wait_is_learned_from_what_left():
    places = Places(10_000)
    with places.taken("a", 8000):
        for _ in range(100):
            with places.taken("b", 1):
                pass
        with pytest.raises(OverShareError) as refusal, places.taken("a", 100):
            raise AssertionError
    assert 1 < refusal.value.retry_after_s <= 30


class Engine:
    """Scores requests of one element at once, and others as soon as they are submitted."""

    def score_at_once(self, prediction, target, options, **_):
        return self.answer(prediction, target, options) if prediction.elements == 1 else None

    def submit(self, prediction, target, options, **_):
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.answer(prediction, target, options))
        return future

    def answer(self, prediction, target, options):
        return Answer(score(prediction, target, options.losses))


def test_what_is_scored_at_once_takes_no_place(monkeypatch):
    asked = []

    def taken(self, client, elements):
        asked.append(elements)
        return real(self, client, elements)

    real = Places.taken
    monkeypatch.setattr(Places, "taken", taken)
    app = ContextMiddleware(ScoreEndpoint(Engine(), Settings()), Metrics())

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for elements in (1, 3):
                series = [{"prediction": [1.0] * elements, "target": [2.0] * elements}]
                answer = await client.post("/score", json={"series": series})
                assert answer.status_code == 200, answer.text

    asyncio.run(main())
    assert asked == [3]

"""Memory is taken at the head of a request, settled once it is known, and always given back."""

import asyncio

import pytest

from service.codecs import json
from service.errors import OverloadedError, OverShareError, TooLargeError
from service.http.room import Room
from service.http.sizes import added_bytes


def test_what_is_likely_is_learned_settled_and_given_back():
    room = Room(10_000)
    for _ in range(60):
        with room.hold("a") as hold:
            hold.kind = "json"
            hold.receive(100)
            hold.settle(300)
            assert room.held_bytes == 400
    assert room.held_bytes == 0
    with room.hold("a") as hold:
        hold.kind = "json"
        hold.receive(100)
        assert 390 <= room.held_bytes <= 400, "it is taken before the body is there"
        hold.settle(0)
        assert room.held_bytes == 100
    with room.hold("a") as other:
        other.kind = "arrow"
        other.receive(100)
        assert room.held_bytes == 100, "kinds are not alike"
    assert room.held_bytes == 0


def test_what_one_client_needs_teaches_nothing_about_others():
    room = Room(10_000)
    for _ in range(60):
        with room.hold("a") as hold:
            hold.kind = "arrow"
            hold.receive(1)
            hold.settle(3000)
    with room.hold("b") as hold:
        hold.kind = "arrow"
        hold.receive(100)
        assert room.held_bytes == 100
    for n in range(5000):
        room.learn(f"c{n}", "arrow", 100, 500)
    assert room.likely("a", "arrow", 1, 0) == 1, "only so many clients are remembered"
    assert room.likely("c4999", "arrow", 100, 0) == 140


def test_a_body_of_two_steps_teaches_once():
    once, twice = Room(10_000), Room(10_000)
    for room in (once, twice):
        with room.hold("a") as hold:
            hold.kind = "long"
            hold.receive(100)
            if room is twice:
                hold.reserve(700)
                assert room.held_bytes == 800
                hold.reserve(0)
                assert room.held_bytes == 800, "how much is left over is known only at the end"
            hold.settle(500)
            assert room.held_bytes == 600
    assert twice.likely("a", "long", 1000, 0) == once.likely("a", "long", 1000, 0) == 1500


def test_a_body_that_fits_is_not_refused_for_what_is_only_likely():
    room = Room(1000)
    for _ in range(60):
        with room.hold("a") as hold:
            hold.receive(10)
            hold.settle(90)
    with room.hold("a") as hold:
        hold.receive(500)  # ten times as much would never fit
        hold.settle(0)
        assert room.held_bytes == 500


def test_refusals_hold_nothing():
    room = Room(1000)
    with room.hold("a") as first:
        first.receive(700)
        with pytest.raises(OverShareError), room.hold("a") as second:
            second.receive(200)
        with pytest.raises(OverloadedError), room.hold("b") as third:
            third.receive(400)
        assert room.held_bytes == 700
        with pytest.raises(TooLargeError, match="MiB"):
            first.settle(200)
        assert room.held_bytes == 700
    assert room.held_bytes == 0


def test_who_holds_nothing_else_is_not_told_off_for_it():
    room = Room(1000)
    with room.hold("a") as first, room.hold("b") as second:
        first.receive(500)
        second.receive(350)
        with pytest.raises(OverloadedError):
            second.settle(100)


def test_bytes_are_held_until_work_that_cannot_be_called_off_has_ended():
    async def main():
        room, work = Room(1000), asyncio.get_running_loop().create_future()
        with room.hold("a") as hold:
            hold.receive(500)
            hold.until(work)
        assert room.held_bytes == 500
        work.set_result(None)
        await asyncio.sleep(0)
        assert room.held_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("is_json", "answers_json", "is_cut", "copies_of_gradients"),
    [
        (False, False, False, 0),  # they are the answer itself
        (False, False, True, 1),  # parts, and what they are joined to
        (False, True, False, 1),  # beside their text
        (True, True, True, 2),
    ],
)
def test_what_a_request_is_taken_to_need(is_json, answers_json, is_cut, copies_of_gradients):
    body = b'{"gradients": true, "losses": ["mae", "mape"], "series": [{"prediction": [1, 2, 3], "target": [4, 5, 6]}]}'
    request, encoded = json.decode(memoryview(body), max_elements=3), 1000
    kinds = {"is_json": is_json, "answers_json": answers_json, "is_cut": is_cut}
    numbers = 2 * 3 * 8 if is_json else 0
    gradients = 2 * 3 * 8 * copies_of_gradients
    assert added_bytes(request, encoded, **kinds) == encoded + numbers + gradients

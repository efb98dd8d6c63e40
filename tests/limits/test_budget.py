"""Memory is reserved at the head of a request, settled once it is known, and always released."""

import asyncio
import threading

import pytest

from loss_scoring.service.codecs import json
from loss_scoring.service.errors import (
    DeadlineError,
    OverloadedError,
    OverShareError,
    TooLargeError,
)
from loss_scoring.service.limits.budget import MemoryBudget, QueueQuota, Reservation


def test_what_is_likely_is_learned_settled_and_released():
    memory = MemoryBudget(10_000, small_bytes=0)
    for _ in range(60):
        with Reservation(memory, "a") as reservation:
            reservation.kind = "json"
            reservation.receive(100)
            reservation.settle(300)
            assert memory.held == 400
    assert memory.held == 0
    with Reservation(memory, "a") as reservation:
        reservation.kind = "json"
        reservation.receive(100)
        assert 390 <= memory.held <= 400, "it is reserved before the body is there"
        reservation.settle(0)
        assert memory.held == 100
    with Reservation(memory, "a") as other:
        other.kind = "arrow"
        other.receive(100)
        assert memory.held == 100, "kinds are not alike"
    assert memory.held == 0


def test_what_one_client_needs_teaches_nothing_about_others():
    memory = MemoryBudget(10_000, small_bytes=0)
    for _ in range(60):
        with Reservation(memory, "a") as reservation:
            reservation.kind = "arrow"
            reservation.receive(1)
            reservation.settle(3000)
    with Reservation(memory, "b") as reservation:
        reservation.kind = "arrow"
        reservation.receive(100)
        assert memory.held == 100
    for n in range(5000):
        memory.learn(f"c{n}", "arrow", 100, 500)
    assert memory.likely("a", "arrow", 1) == 1, "only so many clients are remembered"
    assert memory.likely("c4999", "arrow", 100) == 140


def test_a_body_that_is_decoded_in_steps_teaches_once():
    once, twice = MemoryBudget(10_000, small_bytes=0), MemoryBudget(10_000, small_bytes=0)
    for memory in (once, twice):
        with Reservation(memory, "a") as reservation:
            reservation.kind = "long"
            reservation.receive(100)
            if memory is twice:
                reservation.reserve(700)
                assert memory.held == 800
                reservation.reserve(0)
                assert memory.held == 800, "how much is left over is known only at the end"
            reservation.settle(500)
            assert memory.held == 600
    assert twice.likely("a", "long", 1000) == once.likely("a", "long", 1000) == 1500


def test_a_body_that_fits_is_not_refused_for_what_is_only_likely():
    memory = MemoryBudget(1000, small_bytes=0)
    for _ in range(60):
        with Reservation(memory, "a") as reservation:
            reservation.receive(10)
            reservation.settle(90)
    with Reservation(memory, "a") as reservation:
        reservation.receive(500)  # ten times as much would never fit
        reservation.settle(0)
        assert memory.held == 500


def test_a_small_body_is_reserved_when_it_is_settled():
    memory = MemoryBudget(1000, small_bytes=100)
    with Reservation(memory, "a") as reservation:
        reservation.receive(60)
        assert memory.held == 0
        reservation.settle(200)
        assert memory.held == 260
    with Reservation(memory, "a") as reservation:
        reservation.receive(60)
        reservation.receive(60)
        assert memory.held == 120, "what came before is reserved too"
    with Reservation(memory, "a") as reservation, Reservation(memory, "b") as other:
        reservation.receive(100)
        other.receive(700)
        with pytest.raises(OverloadedError):
            reservation.settle(200)
    assert memory.held == 0


def test_refusals_hold_nothing():
    memory = MemoryBudget(1000, small_bytes=0)
    with Reservation(memory, "a") as first:
        first.receive(700)
        with pytest.raises(OverShareError), Reservation(memory, "a") as second:
            second.receive(200)
        with pytest.raises(OverloadedError), Reservation(memory, "b") as third:
            third.receive(400)
        assert memory.held == 700
        with pytest.raises(TooLargeError, match="MiB"):
            first.settle(200)
        assert memory.held == 700
    assert memory.held == 0


def test_a_client_that_holds_nothing_else_is_not_blamed():
    memory = MemoryBudget(1000, small_bytes=0)
    with Reservation(memory, "a") as first, Reservation(memory, "b") as second:
        first.receive(500)
        second.receive(350)
        with pytest.raises(OverloadedError):
            second.settle(100)


def test_bytes_are_held_until_work_that_cannot_be_cancelled_has_ended():
    async def main():
        memory, work = MemoryBudget(1000, small_bytes=0), asyncio.get_running_loop().create_future()
        with Reservation(memory, "a") as reservation:
            reservation.receive(500)
            reservation.until(work)
        assert memory.held == 500
        work.set_result(None)
        await asyncio.sleep(0)
        assert memory.held == 0
        with reservation:
            pass
        assert memory.held == 0

    asyncio.run(main())


def test_work_in_a_thread_is_called_off_once_its_request_has_ended():
    with Reservation(MemoryBudget(1000), "a") as reservation:
        reservation.check()
    with pytest.raises(DeadlineError):
        reservation.check()


def test_threads_that_reserve_and_release_lose_nothing():
    memory, refused = MemoryBudget(1000, small_bytes=0), []

    def work(client):
        for size in range(1, 400):
            try:
                with Reservation(memory, client) as reservation:
                    reservation.receive(size)
                    reservation.reserve(size)
                    reservation.settle(size // 2)
            except OverloadedError as error:
                refused.append(error)

    threads = [threading.Thread(target=work, args=(f"c{n % 3}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.held == 0
    assert memory._share._held == {}


def test_a_greedy_client_is_refused_and_a_newcomer_is_admitted():
    quota = QueueQuota(1000)
    quota.take("greedy", 800)
    with pytest.raises(OverShareError) as refusal:
        quota.take("greedy", 1)
    assert refusal.value.reason == "queue-share"
    assert refusal.value.retry_after_s >= 1
    quota.take("newcomer", 160)
    with pytest.raises(OverloadedError) as refusal:
        quota.take("third", 100)
    assert refusal.value.reason == "queue-full"
    assert refusal.value.retry_after_s >= 1
    quota.release("newcomer", 160)
    quota.take("third", 100)
    quota.release("third", 100)
    quota.release("greedy", 800)
    quota.take("greedy", 800)


def test_the_time_to_wait_is_learned_from_what_was_released():
    quota = QueueQuota(10_000)
    quota.take("a", 8000)
    for _ in range(100):
        quota.take("b", 1)
        quota.release("b", 1)
    with pytest.raises(OverShareError) as refusal:
        quota.take("a", 100)
    assert 1 < refusal.value.retry_after_s <= 30


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
    request = json.decode(memoryview(body), max_elements=3)
    request.copied = is_json
    numbers = 2 * 3 * 8 if is_json else 0
    gradients = 2 * 3 * 8 * copies_of_gradients
    needed = request.estimate(
        "json" if answers_json else "arrow", batch_elements=2 if is_cut else 3
    )
    assert 0 <= needed - request.answer_bytes - numbers - gradients <= 128  # for the one series
    assert request.answer_bytes > 0

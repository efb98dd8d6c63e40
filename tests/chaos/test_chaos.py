"""A short selection of the chaos scenarios; `make chaos` runs them whole (bench/reliability.md).

Each is the same code with smaller numbers. Figures that depend on what else the machine does are
judged in the long run only.
"""

import abandoned
import cross_talk
import deadlines
import draining
import failing_device
import numpy as np
import open_bodies
import pytest
import soak
from finding import at_least, at_most, check, counts, quantile
from instance import MEBI, QUEUED, faulty, instance


def test_cross_talk():
    check(cross_talk.run(requests=600))


@pytest.fixture
def little():
    with instance(faulty(), environment=failing_device.LITTLE, **QUEUED) as running:
        yield running


def test_abandoned(little):
    check(abandoned.findings(little, each=30))


@pytest.fixture
def slow():
    limits = {"batch_elements": 10, "shutdown_s": draining.SHUTDOWN_S, **QUEUED}
    with instance(faulty(), environment=deadlines.SLOW, **limits) as running:
        yield running


def test_deadlines(slow):
    check(counts(deadlines.findings(slow, requests=32)))


def test_open_bodies():
    check(open_bodies.run(size=8 * MEBI, room=64 * MEBI))


def test_failing_device(little):
    check(failing_device.findings(little))


def test_draining(slow):
    check(counts(draining.accepted(slow, requests=4)))


def test_a_second_sigterm(little):
    check(draining.twice(little, most_s=10))


@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_the_soak_tells_a_leak_from_noise(leak):
    seconds = np.arange(0, 180, 0.6)
    memory = 400 + np.random.default_rng(1).normal(0, 3, len(seconds)) + leak * seconds
    flat = np.full(len(seconds), 9.0)
    samples = np.column_stack([seconds, memory, flat, flat])
    grown = soak.growths(samples)[0]
    assert (grown > soak.GROWTH["memory"][0]) == bool(leak)


def test_a_finding_without_a_measurement_fails():
    missing = quantile([], 0.99)
    assert not at_most("", missing, 1).passed
    assert not at_least("", missing, 0).passed
    with pytest.raises(AssertionError, match="proves nothing"):
        check([])
    with pytest.raises(AssertionError, match="lost: 1"):
        check([at_most("lost", 1, 0)])

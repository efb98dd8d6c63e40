"""A device that is lost for good: a supervisor gives up, so that the orchestrator sees it."""

import os
import signal

import pytest
from family import stat_of, wait_until
from instance import QUEUED, faulty, instance

from loss_scoring.service.processes.endings import FailedStarts

SOON = {"CHAOS_GIVE_UP": "3 1.5"}
NO_PATIENCE = {"CHAOS_GIVE_UP": "1 0"}
QUIET = {"device": "cpu", "frontends": 2, "log_level": "warning", "log_format": "text", **QUEUED}


@pytest.mark.parametrize(
    ("how", "why"),
    [("fails", "RuntimeError: CUDA error: the device is lost"), ("crashes", "it ended with -6")],
)
def test_a_device_that_is_lost_for_good_ends_the_service(how, why):
    with instance(faulty(2), environment=SOON, **QUIET) as running:
        others = set(running.family) - {running.process.pid}
        (running.folder / "lost").write_text(how)
        os.kill(running.worker, signal.SIGKILL)
        assert running.exit_code(120) == 70
        (line,) = [line for line in running.log_text().splitlines() if "giving up" in line]
        assert line.endswith(why)
    wait_until(lambda: not any(map(stat_of, others)))


def test_workers_that_were_ready_may_be_killed_as_often_as_one_likes():
    with instance(faulty(2), environment=NO_PATIENCE, **QUIET) as running:
        for _ in range(6):
            killed = running.worker
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: running.worker != killed)
            running.await_ready()
        assert running.alive
        running.signal()
        assert running.exit_code(120) == 0
        assert "giving up" not in running.log_text()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_takes_both_several_failures_in_a_row_and_some_time():
    clock = Clock()
    starts = FailedStarts(5, 60, clock)
    for _ in range(5):
        starts.add("first")
    clock.now += 59.9
    assert not starts.too_many
    clock.now += 0.1
    assert starts.too_many
    starts.reset()
    assert not starts.too_many
    clock.now += 1000
    for _ in range(4):
        starts.add("second")
    assert not starts.too_many
    starts.add("third")
    assert starts.too_many
    assert (starts.count, starts.seconds, starts.why) == (5, 1000, "third")


def test_a_worker_killed_every_2_s_for_a_minute_is_no_lost_device():
    clock = Clock()
    starts = FailedStarts(clock=clock)
    for _ in range(30):  # even if none gets ready between two kills
        clock.now += 2
        starts.add("it ended with -9")
        assert not starts.too_many

"""Time in which this process was paused does not count."""

from loss_scoring.service.limits.awake import TICK_S, AwakeClock


class Time:
    now = 100.0

    def __call__(self):
        return self.now


def test_it_runs_as_fast_as_time_while_it_is_ticked():
    time = Time()
    clock = AwakeClock(time)
    began = clock.now()
    for _ in range(20):
        time.now += TICK_S
        clock.tick()
    assert clock.now() - began == 20 * TICK_S
    time.now += 0.125
    assert clock.now() - began == 20 * TICK_S + 0.125


def test_a_pause_counts_as_two_ticks():
    time = Time()
    clock = AwakeClock(time)
    clock.tick()
    time.now += 3600
    assert clock.now() == 2 * TICK_S
    clock.tick()
    assert clock.now() == 2 * TICK_S

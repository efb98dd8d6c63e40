"""The batching policy: a state machine against a model, and each rule as an example."""

import itertools
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loss_scoring.service.engine import BatchPolicy

BUDGET = 4  # small, so that batches often fill to the brim


def offsets_of(lengths):
    return [0, *itertools.accumulate(lengths)]


def taken(batch):
    return [(span.request, span.start, span.stop) for span in batch]


class PolicyMachine(RuleBasedStateMachine):
    """The model: the line of waiting requests, what each still has and since when it waits."""

    def __init__(self):
        super().__init__()
        self.policy = BatchPolicy(batch_elements=BUDGET)
        self.now = 0.0
        self.numbers = itertools.count()
        self.waiting = {}
        self.line = []
        self.deadlines = {}
        self.loners = set()

    def queued(self):
        return sum(sum(lengths) for lengths, _, _ in self.waiting.values())

    @rule(
        lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
        patience=st.one_of(st.floats(0, 20), st.just(math.inf)),
        alone=st.sampled_from([False, False, False, True]),
    )
    def admit(self, lengths, patience, alone):
        number = next(self.numbers)
        deadline = self.now + patience
        self.policy.admit(number, offsets_of(lengths), now=self.now, deadline=deadline, alone=alone)
        self.waiting[number] = (lengths, 0, self.now)
        self.line.append(number)
        self.deadlines[number] = deadline
        if alone:
            self.loners.add(number)

    @rule()
    def expire(self):
        late = {number for number in self.waiting if self.deadlines[number] <= self.now}
        expired = self.policy.expire(now=self.now)
        assert len(expired) == len(set(expired))
        assert set(expired) == late
        for number in late:
            del self.waiting[number]
            self.line.remove(number)

    @precondition(lambda self: self.waiting)
    @rule(choice=st.randoms(use_true_random=False))
    def withdraw(self, choice):
        number = choice.choice(sorted(self.waiting))
        self.policy.withdraw(number)
        del self.waiting[number]
        self.line.remove(number)

    @rule(number=st.integers(10**6, 10**7))
    def withdraw_unknown(self, number):
        self.policy.withdraw(number)

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(idle=st.booleans())
    def next_batch(self, idle):
        batch = self.policy.next_batch(now=self.now, idle=idle)
        if not idle and self.line and self.line[0] in self.loners:
            assert batch == [], "it waits for the device to be idle, and others wait behind it"
            return
        assert bool(batch) == bool(self.waiting), "no timer: what waits is served at once"
        assert len({span.request for span in batch}) == len(batch)
        size = sum(span.elements for span in batch)
        alone = len(batch) == 1 and batch[0].stop - batch[0].start == 1
        assert size <= BUDGET or alone
        assert len(batch) == 1 or not any(span.request in self.loners for span in batch)
        assert all(span.alone == (span.request in self.loners) for span in batch)
        for span in batch:
            lengths, done, since = self.waiting.pop(span.request)
            assert span.start == done, "series are served in order, each once"
            count = span.stop - span.start
            assert count >= 1
            assert span.elements == sum(lengths[:count])
            assert span.waited == self.now - since
            if lengths[count:]:
                self.waiting[span.request] = (lengths[count:], span.stop, since)
        # Nobody starves: the line is served from its head, only the last one served may be cut, and
        # only if what it still has does not fit.
        served = [span.request for span in batch]
        assert served == self.line[: len(served)]
        assert not any(number in self.waiting for number in served[:-1])
        self.line = [number for number in self.line if number in self.waiting]
        if self.line:
            next_series = self.waiting[self.line[0]][0][0]
            between = not self.loners.isdisjoint([served[-1], self.line[0]]) if served else False
            assert size + next_series > BUDGET or between
            if served == self.line[:1]:  # it had the batch to itself, and is cut
                self.line.append(self.line.pop(0))

    @invariant()
    def counts_are_exact(self):
        assert self.policy.queued_elements == self.queued()
        assert len(self.policy._queue) == len(self.waiting)


TestPolicy = PolicyMachine.TestCase
TestPolicy.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def policy_with(*requests, budget=10):
    policy = BatchPolicy(batch_elements=budget)
    for number, lengths in enumerate(requests):
        policy.admit(number, offsets_of(lengths), now=0)
    return policy


def test_what_waits_together_is_scored_together():
    policy = policy_with([2], [3], [4])
    assert taken(policy.next_batch(now=0)) == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    assert policy.next_batch(now=0) == []


def test_a_huge_request_lets_small_ones_pass_after_one_batch():
    policy = policy_with([5] * 100)
    assert taken(policy.next_batch(now=0)) == [(0, 0, 2)]
    policy.admit(1, [0, 1], now=0)
    policy.admit(2, [0, 1], now=0)
    batches = [taken(policy.next_batch(now=0)) for _ in range(4)]
    assert batches[0] == [(0, 2, 4)]  # it stood before them in the queue
    assert batches[1] == [(1, 0, 1), (2, 0, 1), (0, 4, 5)]
    assert batches[2:] == [[(0, 5, 7)], [(0, 7, 9)]]


def test_a_small_request_is_not_cut_again_and_again_by_newcomers():
    policy = policy_with([9], [1] * 10)
    batches = []
    for number in range(2, 5):
        policy.admit(number, [0, 9], now=0)
        batches.append(taken(policy.next_batch(now=0)))
    assert batches[:2] == [[(0, 0, 1), (1, 0, 1)], [(1, 1, 10)]]


def test_a_series_over_the_budget_goes_alone():
    policy = policy_with([3], [25, 1], [3])
    batches = [taken(policy.next_batch(now=0)) for _ in range(3)]
    assert batches == [[(0, 0, 1)], [(1, 0, 1)], [(2, 0, 1), (1, 1, 2)]]


def test_a_request_that_does_not_fit_ends_the_batch_and_keeps_its_place():
    policy = policy_with([6], [6], [4], [9])
    batches = [taken(policy.next_batch(now=0)) for _ in range(3)]
    assert batches == [[(0, 0, 1)], [(1, 0, 1), (2, 0, 1)], [(3, 0, 1)]]


def test_a_withdrawn_request_is_never_handed_out():
    policy = policy_with([5] * 4, [5])
    policy.next_batch(now=0)
    policy.withdraw(0)
    assert policy.queued_elements == 5
    assert taken(policy.next_batch(now=0)) == [(1, 0, 1)]


@pytest.mark.parametrize("budget", [0, -1])
def test_the_budget_is_positive(budget):
    with pytest.raises(ValueError, match="positive"):
        BatchPolicy(batch_elements=budget)


def test_deadlines_of_the_answered_do_not_pile_up():
    policy = policy_with()
    for number in range(10_000):
        policy.admit(number, [0, 1], now=0, deadline=600)
        policy.next_batch(now=0)
    assert len(policy._deadlines) < 2000
    policy.admit(10_000, [0, 1], now=0, deadline=600)
    assert policy.expire(now=600) == [10_000]

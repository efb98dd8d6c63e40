"""Shares of what is scarce: bounded, given back, fair, and with room for a newcomer."""

from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission import ALONE, Admission, Verdict

CAPACITY = 1000


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 400), st.booleans()),
        max_size=60,
    )
)
def test_what_is_held_is_exact_and_bounded(wishes):
    admission, held = Admission(CAPACITY), []
    for client, amount, back in wishes:
        mine = sum(a for c, a in held if c == client)
        others = sum(a for _, a in held) - mine
        verdict = admission.take(client, amount)
        fits = amount == 0 or mine + amount <= ALONE * (CAPACITY - others)
        assert (verdict is Verdict.TAKEN) == fits
        if verdict is Verdict.TAKEN:
            held.append((client, amount))
        if verdict is not Verdict.TAKEN:
            alone = amount <= ALONE * (CAPACITY - others)
            assert (verdict is Verdict.OVER_SHARE) == alone
            assert mine > 0 or not alone
        if back and held:
            admission.give_back(*held.pop(0))
        assert admission.held == sum(amount for _, amount in held) <= CAPACITY
    for one in held:
        admission.give_back(*one)
    assert admission.held == 0
    assert admission.take("a", int(ALONE * CAPACITY)) is Verdict.TAKEN


def fill(admission, clients):
    """Let greedy clients take turns until nobody gets anything more; return what each holds."""
    holds, asking = dict.fromkeys(clients, 0), set(clients)
    while asking:
        for client in sorted(asking):
            if admission.take(client, 1) is Verdict.TAKEN:
                holds[client] += 1
            else:
                asking.remove(client)
    return holds


def test_greedy_clients_get_equal_parts_and_a_newcomer_finds_room():
    for n in (1, 2, 5, 10):
        admission = Admission(CAPACITY)
        holds = fill(admission, range(n))
        assert max(holds.values()) - min(holds.values()) <= 1
        free = CAPACITY - admission.held
        assert free >= CAPACITY / (1 + 4 * n) - n
        assert admission.take("newcomer", free // 2) is Verdict.TAKEN


def test_a_hog_is_told_that_it_is_one_and_others_that_there_is_no_room():
    admission = Admission(CAPACITY)
    assert admission.take("hog", 800) is Verdict.TAKEN
    assert admission.take("hog", 100) is Verdict.OVER_SHARE
    assert admission.take("hog", 300) is Verdict.OVER_SHARE, "nobody else is in its way"
    assert admission.take("other", 300) is Verdict.FULL

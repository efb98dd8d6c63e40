"""Shares of what is scarce: bounded, given back, fair, and with room for a newcomer."""

from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.service.limits.fairness import ALONE, FairShare, Verdict

CAPACITY = 1000


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 400), st.booleans()),
        max_size=60,
    )
)
def test_what_is_held_is_exact_and_bounded(wishes):
    share, held = FairShare(CAPACITY), []
    for client, amount, back in wishes:
        mine = sum(a for c, a in held if c == client)
        others = sum(a for _, a in held) - mine
        verdict = share.take(client, amount)
        fits = amount == 0 or mine + amount <= ALONE * (CAPACITY - others)
        assert (verdict is Verdict.ADMITTED) == fits
        if verdict is Verdict.ADMITTED:
            held.append((client, amount))
        if verdict is not Verdict.ADMITTED:
            alone = amount <= ALONE * (CAPACITY - others)
            assert (verdict is Verdict.OVER_SHARE) == alone
            assert mine > 0 or not alone
        if back and held:
            share.release(*held.pop(0))
        assert share.total == sum(amount for _, amount in held) <= CAPACITY
    for one in held:
        share.release(*one)
    assert share.total == 0
    assert share.take("a", int(ALONE * CAPACITY)) is Verdict.ADMITTED


def fill(share, clients):
    """Let greedy clients take turns until nobody gets anything more; return what each holds."""
    holds, asking = dict.fromkeys(clients, 0), set(clients)
    while asking:
        for client in sorted(asking):
            if share.take(client, 1) is Verdict.ADMITTED:
                holds[client] += 1
            else:
                asking.remove(client)
    return holds


def test_greedy_clients_get_equal_parts_and_a_newcomer_finds_room():
    for n in (1, 2, 5, 10):
        share = FairShare(CAPACITY)
        holds = fill(share, range(n))
        assert max(holds.values()) - min(holds.values()) <= 1
        free = CAPACITY - share.total
        assert free >= CAPACITY / (1 + 4 * n) - n
        assert share.take("newcomer", free // 2) is Verdict.ADMITTED


def test_a_hog_is_told_that_it_is_one_and_others_that_there_is_no_room():
    share = FairShare(CAPACITY)
    assert share.take("hog", 800) is Verdict.ADMITTED
    assert share.take("hog", 100) is Verdict.OVER_SHARE
    assert share.take("hog", 300) is Verdict.OVER_SHARE, "nobody else is in its way"
    assert share.take("other", 300) is Verdict.FULL

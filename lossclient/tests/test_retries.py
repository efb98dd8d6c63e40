from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossclient.retries import Retries, retry_after_s

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Wed, 25 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Wed, 25 Nov 2026 12:00:30 -0000"}, 30),
        ({"retry-after": "Wed, 25 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        # The service's clock is an hour behind: only its own Date tells how long it means.
        (
            {
                "retry-after": "Wed, 25 Nov 2026 11:00:05 GMT",
                "date": "Wed, 25 Nov 2026 11:00:00 GMT",
            },
            5,
        ),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after_s(headers, NOW) == seconds


@given(st.integers(1, 5), st.floats(0, 60), st.floats(0, 1, exclude_max=True))
def test_waits_are_spread_bounded_and_never_less_than_asked(failed, asked, chance):
    retries = Retries()
    wait = retries.wait_s(failed, asked, chance)
    assert asked <= wait <= asked + min(retries.most_s, retries.first_s * 2 ** (failed - 1))
    assert retries.wait_s(failed, None, 0) == 0


def test_waits_double_up_to_a_limit():
    retries = Retries(attempts=2000)
    assert [retries.wait_s(n, None, 1.0) for n in (1, 2, 3, 6, 7, 2000)] == [0.25, 0.5, 1, 8, 8, 8]


def test_it_gives_up():
    retries = Retries(attempts=2)
    assert retries.wait_s(2, None, 0.5) is not None
    assert retries.wait_s(3, None, 0.5) is None
    assert retries.wait_s(1, 61.0, 0.5) is None
    assert Retries(attempts=0).wait_s(1, None, 0.5) is None

"""A short selection of the fuzzing; `make chaos` runs it whole (bench/reliability.md)."""

import cheap_bytes
import hostile_http
import mutated_arrow
import mutated_json
import pipelined_flood
import pytest
from finding import check, counts
from instance import instance
from mutants import mutants


@pytest.fixture(scope="module")
def running():
    with instance(default_timeout_ms=5000, **mutated_arrow.LIMITS) as one:
        yield one


def test_mutated_arrow(running):
    check(mutated_arrow.findings(running, count=2000))


def test_mutated_json(running):
    check(mutated_json.findings(running, count=2000))


def test_hostile_http(running):
    check(hostile_http.findings(running, rounds=1))


def test_a_pipelined_flood(running):
    check(pipelined_flood.findings(running, seconds=2)[0])


def test_cheap_bytes(running):
    check(counts(cheap_bytes.findings(running, seconds=0.2, connections=1)))


def test_mutants_are_the_same_in_every_run():
    first = list(mutants([b"0123456789" * 3] * 2, 50, seed=5))
    assert first == list(mutants([b"0123456789" * 3] * 2, 50, seed=5))
    assert len(set(first)) > 40


def test_the_oracle_of_json_is_not_blind():
    class Lie:
        body = b'{"losses": {"mae": [2.0]}}'

    series = b'{"losses": ["mae"], "series": [{"prediction": [2], "target": [1]}]}'
    assert not mutated_json.sound(series, Lie)
    with pytest.raises(ValueError, match="NaN"):
        mutated_json.sound(series.replace(b"[1]", b"[NaN]"), Lie)

"""What tests of all folders share: a running service and a client of it."""

from collections.abc import Iterator

import forecasts
import httpx
import pytest
from hypothesis import HealthCheck, settings
from instance import HERE, LOSS_SCORING, SERVE, serving

# The first example compiles kernels, and on a busy machine all take long: it decides nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = HERE.parent
__all__ = ["LOSS_SCORING", "ROOT", "serving"]


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with serving(*SERVE) as base:
        yield base


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as one:
        yield one


@pytest.fixture(scope="session")
def real_json() -> bytes:
    return forecasts.REQUEST.read_bytes()

"""What tests of all folders share: a running service and a client of it."""

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import settings
from instance import HERE, LOSS_SCORING, SERVE, serving

# The first example compiles kernels, and how long that takes decides nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = HERE.parent
SHARED = ROOT.parent / "shared" / "data"
__all__ = ["LOSS_SCORING", "ROOT", "SHARED", "serving"]


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
    path = SHARED / "series_small.json"
    return (path if path.exists() else ROOT / "examples/data/request.json").read_bytes()

"""Stand-ins for orchestrators, which are too heavy to install for three blocks of a page.

They call what they decorate, where the real ones schedule it. So a recipe's own lines run, and its
calls have the names and arguments written here, taken from the real libraries' signatures; that the
libraries still take them is not tested. A person did that by hand, with the versions on the page.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any
from unittest import mock

Function = Callable[..., Any]


def _kept(function: Function) -> Function:
    return function


def _airflow() -> dict[str, Any]:
    def dag(*, schedule: str) -> Function:
        assert schedule.startswith("@")
        return _kept

    def task(*, retries: int, retry_delay: timedelta) -> Function:
        assert retries > 0
        assert retry_delay > timedelta()
        return _kept

    return {"airflow": {}, "airflow.sdk": {"dag": dag, "task": task}}


@dataclass
class RetryPolicy:
    max_retries: int
    delay: float


@dataclass
class MaterializeResult:
    metadata: dict[str, float]


def _dagster() -> dict[str, Any]:
    def asset(*, retry_policy: RetryPolicy) -> Function:
        assert isinstance(retry_policy, RetryPolicy)
        return _kept

    names = {"asset": asset, "RetryPolicy": RetryPolicy, "MaterializeResult": MaterializeResult}
    return {"dagster": names}


def _prefect() -> dict[str, Any]:
    def flow(*, log_prints: bool) -> Function:
        assert log_prints
        return _kept

    def task(function: Function, *, retries: int, retry_delay_seconds: float) -> Function:
        assert retries > 0
        assert retry_delay_seconds > 0
        return function

    return {"prefect": {"flow": flow, "task": task}}


STANDINS = {"airflow": _airflow, "dagster": _dagster, "prefect": _prefect}


@contextlib.contextmanager
def standing_in(library: str) -> Iterator[None]:
    """Put a stand-in where ``import`` looks first."""
    modules = {}
    for name, content in STANDINS[library]().items():
        modules[name] = ModuleType(name)
        vars(modules[name]).update(content)
    with mock.patch.dict(sys.modules, modules):
        yield

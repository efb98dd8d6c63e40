import os

import pytest

from lossclient import InvalidInput
from lossclient.forks import PerProcess


def test_each_process_has_its_own(monkeypatch):
    one = PerProcess(object)
    parents = one.get()
    assert one.get() is parents
    child = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: child)
    childs = one.get()
    assert childs is not parents
    assert one.get() is childs


def test_what_is_closed_stays_closed_in_a_child(monkeypatch):
    one = PerProcess(object)
    parents = one.get()
    assert one.close() is parents
    with pytest.raises(InvalidInput, match="closed"):
        one.get()
    child = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: child)
    with pytest.raises(InvalidInput, match="closed"):
        one.get()
    assert one.close() is None


def test_a_child_has_nothing_to_close_of_its_parents(monkeypatch):
    made = []
    one = PerProcess(lambda: made.append(None))
    one.get()
    child = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: child)
    assert one.close() is None
    assert len(made) == 1

import os

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

"""What a client is in a child that was forked; see also the forks in test_clients."""

import os
import subprocess
import sys

import pytest
from fake_service import listening

from lossclient import Client, wire

CHILD = """
import os, sys
import httpx
from lossclient import Client, InvalidInput
client = Client(sys.argv[1])
def mae():
    return client.score_series([[1.0]], [[3.0]]).losses["mae"][0]
def in_a_child(action):
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
made = []
class Counted(httpx.Client):
    def __init__(self, **options):
        made.append(os.getpid())
        super().__init__(**options)
httpx.Client = Counted
"""
CASES = {
    "each process has its own connections": """
assert mae() == 2 and mae() == 2 and made == [os.getpid()]
def child():
    parent, = made
    assert mae() == 2 and mae() == 2 and made == [parent, os.getpid()]
in_a_child(child)
assert mae() == 2 and made == [os.getpid()]
""",
    "closing in a child leaves the parent's open": """
mae()
in_a_child(lambda: client.close())
assert mae() == 2 and made == [os.getpid()]
""",
    "what is closed stays closed in a child": """
mae()
client.close()
def child():
    try:
        mae()
    except InvalidInput as error:
        assert "closed" in str(error)
    else:
        raise AssertionError
    client.close()
in_a_child(child)
""",
}


@pytest.mark.parametrize("case", CASES)
def test_a_fork(case):
    with listening() as url:
        subprocess.run(
            [sys.executable, "-c", CHILD + CASES[case], url],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=60, check=True,
        )  # fmt: skip


def test_a_client_has_encoded_and_decoded_before_any_thread_does(monkeypatch):
    """What Arrow makes when it is first needed has a lock, which a child would wait for."""
    done = []
    for name in ("encode", "decode"):
        real = getattr(wire, name)

        def noted(*given, name=name, real=real, **options):
            done.append(name)
            return real(*given, **options)

        monkeypatch.setattr(wire, name, noted)
    wire.prepare.cache_clear()
    Client("http://127.0.0.1:1").close()
    assert done == ["encode", "decode"]

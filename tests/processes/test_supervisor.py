"""The supervisor alone, with children that are there at once: what it survives, and how it ends."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from family import children, command_of, descriptors, stat_of, wait_until

from loss_scoring.service.processes import child as starting
from loss_scoring.service.processes.child import Child

STUB = Path(__file__).with_name("stub_family.py")


@dataclass(frozen=True)
class Family:
    """A supervisor with its log; ``kind`` is that of its front ends."""

    process: "subprocess.Popen[bytes]"
    log: Path
    kind: str

    @property
    def frontends(self) -> set[int]:
        kind = f"\0{self.kind}\0".encode()
        return {pid for pid in children(self.process.pid) if kind in command_of(pid)}

    def await_text(self, text: str) -> None:
        wait_until(lambda: text in self.log.read_text())


@contextlib.contextmanager
def supervised(folder: Path, kind: str) -> Iterator[Family]:
    log = folder / "log"
    given = {"LOSS_SCORING_FRONTENDS": "2", "LOSS_SCORING_PORT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, STUB, "supervisor", kind], env=os.environ | given, stderr=output
        )
    family = Family(process, log, kind)
    try:
        wait_until(lambda: len(family.frontends) == 2)
        yield family
    finally:
        process.kill()
        process.wait()


def first_free_descriptor(pid: int) -> int:
    used = {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(1000) if number not in used)


def settled(read):
    """Return what is read once it stays the same: a start needs some descriptors for a moment."""
    last = read()
    while True:
        time.sleep(0.2)
        if last == (last := read()):
            return last


def test_it_lives_without_descriptors_and_reads_messages_of_draining_children(tmp_path):
    with supervised(tmp_path, "serving") as family:
        pid = family.process.pid
        first_free = settled(lambda: first_free_descriptor(pid))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert before[0] == before[1], "it may have as many as may be"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
        os.kill(min(family.frontends), signal.SIGKILL)
        family.await_text("cannot be started")
        assert len(family.frontends) == 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: len(family.frontends) == 2)
        family.process.send_signal(signal.SIGTERM)
        assert family.process.wait(20) == 0


def test_a_child_that_was_not_ready_may_end_in_a_drain(tmp_path):
    with supervised(tmp_path, "starting") as family:
        family.await_text("listening")
        os.kill(min(family.frontends), signal.SIGKILL)
        family.await_text("ended with -9")
        family.process.send_signal(signal.SIGTERM)
        assert family.process.wait(20) == 0


def test_as_pid_1_it_reaps_what_it_inherits(tmp_path):
    """A worker whose parent is killed would be left a zombie for as long as a container runs."""
    with supervised(tmp_path, "parenting") as family:
        victim = min(family.frontends)
        (orphan,) = wait_until(lambda: children(victim))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: stat_of(orphan) is None)
        family.await_text("ended with -9")


def test_silence_is_judged_by_the_supervisors_own_time():
    now = 0.0
    child = Child("stub", ["sh", "-c", "exec sleep 60"], clock=lambda: now)
    child.became_ready()
    now = 3.0
    assert not child.kill_if_silent(3)
    now = 3.5
    assert child.kill_if_silent(3)
    child.control.close()


@pytest.mark.parametrize("broken", ["socket.socketpair", "subprocess.Popen"])
def test_a_child_that_cannot_be_started_is_tried_again_and_leaves_no_descriptors(
    monkeypatch, broken
):
    def fail(*_args, **_options):
        raise OSError("no more of them")

    child = Child("stub", ["true"])
    child.running.wait()
    assert child.ended()
    before = descriptors(os.getpid())
    module, name = broken.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(starting, module), name, fail)
        for _ in range(3):
            assert not child.restart_if_due()
            assert not child.alive
            assert not child.ended(), "it has not started since"
    assert descriptors(os.getpid()) == before
    assert wait_until(child.restart_if_due)
    child.control.close()
    child.running.wait()


WITHOUT_IPV6 = """
import socket, sys
from loss_scoring.service.settings import Settings
from loss_scoring.service.processes.supervisor import Supervisor
supervisor = Supervisor(Settings(host="::", frontends=1))
def refused(*_): raise OSError("Address family not supported by protocol")
socket.has_dualstack_ipv6, socket.socket = (lambda: False), refused
sys.exit(supervisor.run())
"""


def test_without_ipv6_it_says_that_it_cannot_listen():
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_IPV6], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        3,
        "cannot listen: Address family not supported by protocol\n",
    )

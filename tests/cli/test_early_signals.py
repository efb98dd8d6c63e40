"""SIGTERM to a service that still imports or compiles: nothing was accepted, so nothing is drained.

The caches are cold, so that a start takes far longer than any end may. As PID 1 of a container a
process gets no signal that it has not asked for, so each is tried in a namespace of its own, too.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import family
import pytest
from instance import SERVE

OWN_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")
AS_USUAL, AS_PID_1 = (), OWN_NAMESPACE
_LONGEST_S = 20
"""To end; a start with cold caches takes longer than that on any machine that runs the tests."""


def namespaces() -> bool:
    with contextlib.suppress(OSError):
        return (
            subprocess.run([*OWN_NAMESPACE, "true"], check=False, capture_output=True).returncode
            == 0
        )
    return False


class Starting:
    """A service that has just been started."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path, pid: int) -> None:
        self.process, self.folder, self.pid = process, folder, pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def imports(self) -> bool:
        """Whether it imports pyarrow, as all commands do, with more to come."""
        with contextlib.suppress(OSError):
            return "libarrow" in Path(f"/proc/{self.pid}/maps").read_text()
        return False

    @property
    def compiles(self) -> bool:
        """Whether machine code was cached, by itself or a child: there is more to come."""
        return any((self.folder / "cache").rglob("*.nbc"))


@contextlib.contextmanager
def starting(folder: Path, wrapper: tuple[str, ...], frontends: int) -> Iterator[Starting]:
    if wrapper and not namespaces():
        pytest.skip("this user may make no namespace of processes")
    given = {"NUMBA_CACHE_DIR": str(folder / "cache"), "LOSS_SCORING_FRONTENDS": str(frontends)}
    command = [*wrapper, *SERVE, "--port", "0", "--device", "cpu"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | given, stdout=log, stderr=log)
    try:
        pid = process.pid
        if wrapper:
            pid = family.wait_until(lambda: next(iter(family.children(process.pid)), None))
        yield Starting(process, folder, pid)
    finally:
        process.kill()
        process.wait()


MOMENTS: dict[str, Callable[[Starting], bool]] = {
    "importing": lambda service: service.imports,
    "compiling": lambda service: service.compiles,
}


@pytest.mark.parametrize("frontends", [0, 2])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("wrapper", [AS_USUAL, AS_PID_1], ids=["as usual", "as PID 1"])
def test_sigterm_amid_the_start_ends_the_service(tmp_path, wrapper, moment, frontends):
    with starting(tmp_path, wrapper, frontends) as service:
        family.wait_until(lambda: MOMENTS[moment](service))
        others = set(family.family(service.pid)) - {service.pid}
        os.kill(service.pid, signal.SIGTERM)
        ended = service.process.wait(_LONGEST_S)
        assert ended in {0, 128 + signal.SIGTERM, -signal.SIGTERM}, service.log
        assert "startup complete" not in service.log
        family.wait_until(lambda: not any(map(family.stat_of, others)))

"""Real processes over real sockets: whoever is killed, requests are answered, and rightly.

What a user is promised of it are chaos scenarios, played here in a short form on one service.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import descriptors as no_descriptors
import frontend_kills
import numpy as np
import orjson
import poison
import pyarrow as pa
import pytest
import worker_kills
import worker_stopped
from descriptors import connection_to_each
from family import descriptors, resident, stat_of, wait_until
from finding import check, counts
from instance import QUEUED, Instance, faulty, free_port, instance
from traffic import Answer, Connection, ask_once, block, play, post, queued, tagged
from wire import ARROW, stream


def fleet(frontends: int = 2, **settings: object):
    """Start a supervised service with a faulty device."""
    quiet = {"device": "cpu", "log_level": "warning", **QUEUED, **settings}
    return instance(faulty(frontends), frontends=frontends, **quiet)


@pytest.fixture(scope="module")
def service():
    with fleet(hung_s=worker_stopped.HUNG_S) as running:
        yield running


def processes(service: Instance) -> set[int]:
    return set(service.family) - {service.process.pid}


def losses(answer: Answer) -> list[float]:
    assert answer.status == 200, answer
    return orjson.loads(answer.body)["losses"]["mae"]


def arrow_of(tag: int, series: int = 3000, length: int = 50) -> bytes:
    values = np.full(series * length, tag, np.float64)
    offsets = np.arange(series + 1, dtype=np.int32) * length
    sides = {"prediction": values, "target": np.zeros_like(values)}
    columns = {
        side: pa.ListArray.from_arrays(offsets, pa.array(side_values))
        for side, side_values in sides.items()
    }
    return post(stream(pa.table(columns)), ARROW, "losses=mae&gradients=true")


async def ask_arrow(connection: Connection, tag: int) -> None:
    """Send 2.4 MB, ask for 1.2 MB of gradients, and check every number."""
    answer = await connection.ask(arrow_of(tag))
    assert answer.status == 200, answer
    table = pa.ipc.open_stream(answer.body).read_all()
    assert set(table["mae"].to_pylist()) == {float(tag)}
    gradients = table["mae_gradient"].combine_chunks().values.to_numpy()
    assert (gradients == np.sign(tag) / 50).all()


def test_batches_form_across_front_ends(service):
    async def main():
        connections = list((await connection_to_each(service)).values())
        first = await block(service)
        calls = [
            connection.begin(post(tagged(100 + n))) for n, connection in enumerate(connections)
        ]
        await queued(service, 2)
        service.gate.unlink()
        assert losses(await first) == [777]
        assert [losses(answer) for answer in await asyncio.gather(*calls)] == [[100], [101]]

    play(main())
    assert [(100.0, 1), (101.0, 1)] in [sorted(batch) for batch in service.ledger()]


def test_no_request_is_lost_or_wrong_while_the_worker_is_killed(service):
    check(counts(worker_kills.findings(service, kills=8, every=0.4)))


def test_a_request_that_kills_the_worker_is_found_among_32_and_fails_alone(service):
    check(poison.findings(service))


def test_a_stopped_worker_costs_deadlines_and_is_replaced(service):
    check(counts(worker_stopped.findings(service)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_front_end_that_dies_or_hangs_is_replaced_and_the_other_serves_on(service, how):
    check(counts(frontend_kills.findings(service, [how])))


def test_front_ends_without_descriptors_connect_to_the_next_worker(service):
    check(counts(no_descriptors.findings(service)))


def test_nothing_grows_over_200_requests_and_5_workers(service):
    async def main():
        connections = [await Connection.open(service) for _ in range(8)]
        sizes = []
        for _ in range(2):
            for _ in range(3):
                os.kill(await asyncio.to_thread(lambda: service.worker), signal.SIGKILL)
                for _ in range(5):
                    asked = (ask_arrow(each, tag) for tag, each in enumerate(connections, 1))
                    await asyncio.gather(*asked)
            pids = [*sorted(service.frontends), service.worker]
            sizes.append([(descriptors(pid), resident(pid)) for pid in pids])
        for (files, size), (files_after, size_after) in zip(*sizes, strict=True):
            assert files_after <= files + 10
            assert size_after <= size + (40 << 20)

    play(main())


def test_a_second_signal_ends_all():
    async def cut_off(running):
        task = await block(running)
        running.signal()
        await asyncio.to_thread(wait_until, lambda: not _listens(running.port))
        await asyncio.sleep(0.3)
        assert running.alive
        running.signal()
        assert await asyncio.to_thread(running.exit_code, 60) == 1
        with pytest.raises(ConnectionError):
            await task

    with fleet(1) as running:
        others = processes(running)
        play(cut_off(running))
    wait_until(lambda: not any(map(stat_of, others)))


def test_nothing_is_left_of_a_supervisor_that_is_killed():
    async def some_arrow(running):
        await ask_arrow(await Connection.open(running), 3)

    shared = Path("/dev/shm")  # noqa: S108 - where named shared memory would be
    files = set(shared.iterdir())
    with fleet(1) as running:
        play(some_arrow(running))
        others = processes(running)
        assert len(others) == 3
        os.kill(running.worker, signal.SIGSTOP)  # not even of a worker that is stopped
        running.process.kill()
        wait_until(lambda: not any((stat_of(pid) or "Z")[0] != "Z" for pid in others))
        assert set(shared.iterdir()) <= files
        wait_until(lambda: not _listens(running.port))


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda service: {"PORT": service.port}, "cannot listen"),
        # The worker says so or a front end, whoever is first.
        (lambda _: {"DEVICE": "cuda:99"}, "device cuda:99: torch sees"),
    ],
    ids=["port", "device"],
)
def test_what_cannot_start_says_so_and_ends(service, wrong, said):
    given = {"FRONTENDS": 1, "PORT": free_port(), **wrong(service)}
    environment = {f"LOSS_SCORING_{name}": str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "loss_scoring.service.processes"]
    ended = subprocess.run(
        command,
        check=False,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 3
    assert said in ended.stderr


def test_a_drain_serves_what_was_accepted():
    async def drain(service):
        first = await block(service)
        waits = (await Connection.open(service)).begin(post(tagged(8.5)))
        await queued(service, 1)
        for pid in reversed(service.family):  # all of them, as systemd does
            os.kill(pid, signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: not _listens(service.port))
        worker = await asyncio.to_thread(lambda: service.worker)
        os.kill(worker, signal.SIGKILL)  # even now nothing is lost
        with pytest.raises(ConnectionError):
            await ask_once(service, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        service.gate.unlink()
        assert losses(await first) == [777]
        assert losses(await waits) == [8.5]

    with fleet() as service:
        others = processes(service)
        play(drain(service))
        assert service.exit_code(120) == 0
        wait_until(lambda: not any(map(stat_of, others)))

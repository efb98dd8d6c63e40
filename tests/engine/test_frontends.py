"""Real processes over real sockets: whoever is killed, requests are answered, and rightly."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from conftest import free_port
from fleet import (
    block,
    body_of,
    children,
    descriptors,
    fleet,
    frontend_of,
    post,
    resident,
    stat_of,
    wait_until,
)
from wire import ARROW, stream


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with fleet(tmp_path_factory.mktemp("fleet"), HUNG_S=3) as one:
        yield one


def losses(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["losses"]["mae"]


def arrow_of(tag, series=3000, length=50):
    values = np.full(series * length, tag, np.float64)
    offsets = np.arange(series + 1, dtype=np.int32) * length
    sides = {"prediction": values, "target": np.zeros_like(values)}
    columns = {
        side: pa.ListArray.from_arrays(offsets, pa.array(side_values))
        for side, side_values in sides.items()
    }
    return stream(pa.table(columns))


async def post_arrow(client, tag):
    """Post 2.4 MB, ask for 1.2 MB of gradients, and check every number."""
    answer = await client.post(
        "/score",
        params={"losses": "mae", "gradients": "true"},
        content=arrow_of(tag),
        headers={"Content-Type": ARROW},
    )
    assert answer.status_code == 200, answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    assert set(table["mae"].to_pylist()) == {float(tag)}
    gradients = table["mae_gradient"].combine_chunks().values.to_numpy()
    assert (gradients == np.sign(tag) / 50).all()


async def client_of_each(stack, service):
    """Return a client with one connection to each front end; who accepts is chance."""
    found = {}
    for _ in range(500):
        client = await stack.enter_async_context(service.async_client(1))
        found.setdefault(frontend_of(await client.get("/livez")), client)
        if len(found) == 2:
            return list(found.values())
        await asyncio.sleep(0.01)
    raise AssertionError("one front end accepts everything")


def test_batches_form_across_front_ends(service):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            clients = await client_of_each(stack, service)
            first = await block(await stack.enter_async_context(service.async_client()), service)
            calls = [asyncio.create_task(post(one, 100 + n)) for n, one in enumerate(clients)]
            await service.unanswered(3)
            service.gate.unlink()
            answers = await asyncio.gather(*calls)
            assert losses(await first) == [777]
        assert [losses(answer) for answer in answers] == [[100], [101]]

    asyncio.run(main())
    assert {100.0, 101.0} in [set(firsts) for _, firsts in service.ledger()]


def test_no_request_is_lost_or_wrong_while_the_worker_is_killed(service):
    rng = random.Random(0)

    async def main():
        async with service.async_client() as client:
            done = asyncio.Event()
            answered = 0

            async def ask(tag):
                nonlocal answered
                while not done.is_set():
                    if tag % 4 == 0:
                        await post_arrow(client, tag + 1)
                    else:
                        firsts = [tag * 1000 + k for k in range(1, rng.randint(2, 30))]
                        assert losses(await post(client, *firsts)) == firsts
                    answered += 1

            asking = [asyncio.create_task(ask(tag)) for tag in range(16)]
            killed = set()
            for _ in range(8):
                await asyncio.sleep(0.3 + 0.2 * rng.random())
                worker = service.worker
                killed.add(worker)
                os.kill(worker, signal.SIGKILL)
            await asyncio.sleep(0.3)
            done.set()
            await asyncio.gather(*asking)
            assert len(killed) == 8
            assert answered > 100

    asyncio.run(main())


def test_a_request_that_kills_the_worker_is_found_among_32_and_fails_alone(service):
    async def main():
        async with service.async_client() as client:
            first = await block(client, service)
            tags = [200 + n if n != 13 else 666 for n in range(32)]
            calls = [asyncio.create_task(post(client, tag)) for tag in tags]
            await service.unanswered(33)
            service.gate.unlink()
            assert losses(await first) == [777]
            answers = await asyncio.gather(*calls)
        for tag, answer in zip(tags, answers, strict=True):
            if tag == 666:
                assert answer.status_code == 500
                assert "alone" in answer.json()["detail"]
            else:
                assert losses(answer) == [tag]

    asyncio.run(main())
    deadly = [firsts for _, firsts in service.ledger() if 666.0 in firsts]
    assert len(deadly[0]) > 1, "it was in a batch with others"
    assert deadly[1:] == [[666.0]], "and then alone, once"
    with service.client() as client:
        assert losses(client.post("/score", json=body_of(5))) == [5]


def test_a_stopped_worker_costs_deadlines_and_is_replaced(service):
    async def main():
        async with service.async_client() as client:
            worker = service.worker
            os.kill(worker, signal.SIGSTOP)
            started = time.monotonic()
            late = await post(client, 1.5, **{"X-Request-Timeout-Ms": "300"})
            assert late.status_code == 504
            assert 0.3 <= time.monotonic() - started < 3
            os.kill(worker, signal.SIGCONT)
            assert losses(await post(client, 2.5)) == [2.5]
            os.kill(worker, signal.SIGSTOP)
            assert losses(await post(client, 3.5)) == [3.5], "the supervisor has replaced it"
            assert service.worker != worker
            assert stat_of(worker) is None

    asyncio.run(main())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_front_end_that_dies_or_hangs_is_replaced_and_the_other_serves_on(service, how):
    before = service.frontends
    os.kill(min(before), how)
    with service.client() as client:
        for tag in range(1, 20):
            assert losses(client.post("/score", json=body_of(tag))) == [tag]
    wait_until(lambda: len(service.frontends - before) == 1)
    service.wait_until_ready()


def test_nothing_grows_over_200_requests_and_5_workers(service):
    async def requests(client):
        for _ in range(5):
            await asyncio.gather(*(post_arrow(client, tag) for tag in range(1, 9)))

    async def main():
        async with service.async_client(8) as client:
            sizes = []
            for _ in range(2):
                for _ in range(3):
                    os.kill(service.worker, signal.SIGKILL)
                    await requests(client)
                sizes.append(
                    [(descriptors(pid), resident(pid)) for pid in sorted(service.frontends)]
                    + [(descriptors(service.worker), resident(service.worker))]
                )
        for (files, size), (files_after, size_after) in zip(*sizes, strict=True):
            assert files_after <= files + 10
            assert size_after <= size + (40 << 20)

    asyncio.run(main())


def test_a_second_signal_ends_all(tmp_path):
    async def cut_off(one):
        async with one.async_client() as client:
            task = await block(client, one)
            one.running.terminate()
            await asyncio.sleep(0.3)
            assert one.running.poll() is None
            one.running.terminate()
            assert await asyncio.to_thread(one.running.wait, 10) == 1
            with pytest.raises(httpx.TransportError):
                await task

    with fleet(tmp_path, frontends=1) as one:
        family = children(one.running.pid) | children(one.nursery)
        asyncio.run(cut_off(one))
    wait_until(lambda: not any(map(stat_of, family)))


def test_nothing_is_left_of_a_supervisor_that_is_killed(tmp_path):
    shared = Path("/dev/shm")  # noqa: S108 - where named shared memory would be
    files = set(shared.iterdir())
    with fleet(tmp_path, frontends=1) as one:
        asyncio.run(_some_arrow(one))
        family = children(one.running.pid) | children(one.nursery)
        assert len(family) == 3
        os.kill(one.worker, signal.SIGSTOP)  # not even of a worker that is stopped
        one.running.kill()
        wait_until(lambda: not any((stat_of(pid) or "Z")[0] != "Z" for pid in family))
    assert set(shared.iterdir()) <= files
    wait_until(lambda: not _listens(int(one.url.rpartition(":")[2])))


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    "wrong", [lambda url: {"PORT": url.rpartition(":")[2]}, lambda _: {"DEVICE": "cuda:99"}]
)
def test_what_cannot_start_says_so_and_ends(service, wrong):
    given = {"FRONTENDS": 1, "PORT": free_port(), **wrong(service.url)}
    environment = {f"LOSS_SCORING_{name}": str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "service.supervisor"]
    ended = subprocess.run(
        command,
        check=False,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 3
    assert "cannot" in ended.stderr


async def _some_arrow(one):
    async with one.async_client() as client:
        await post_arrow(client, 3)


def test_a_drain_serves_what_was_accepted(service):
    """The last test, since the service has ended after it."""

    async def drain():
        async with service.async_client() as client:
            first = await block(client, service)
            waits = asyncio.create_task(post(client, 8.5))
            await service.unanswered(2)
            service.running.terminate()
            await asyncio.sleep(0.5)
            os.kill(service.worker, signal.SIGKILL)  # even now nothing is lost
            with pytest.raises(httpx.ConnectError):
                await httpx.AsyncClient().get(f"{service.url}/livez")
            service.gate.unlink()
            assert losses(await first) == [777]
            assert losses(await waits) == [8.5]

    family = children(service.running.pid) | children(service.nursery)
    asyncio.run(drain())
    assert service.running.wait(20) == 0
    wait_until(lambda: not any(map(stat_of, family)))

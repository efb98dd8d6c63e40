"""Both clients on httpx's mock transport: what is sent, how much at a time, and when it ends."""

import asyncio
import copy
import inspect
import io
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fake_service import answer, listening, losses_of, problem, respond

from lossclient import (
    AsyncClient,
    BadRequest,
    Client,
    DeadlineExceeded,
    InvalidInput,
    InvalidValues,
    Overloaded,
    Retries,
    TransportError,
    Unauthorized,
    async_client,
    wire,
)
from lossclient.base_client import BaseClient

URL = "http://service.test/api"
RNG = np.random.default_rng(0)
SERIES = [RNG.normal(size=n) for n in RNG.integers(1, 30, 60)]
TARGETS = [series + RNG.normal(size=len(series)) for series in SERIES]


class Threads:
    """Drives the client in threads."""

    def __init__(self, respond, **options):
        self._client = Client(URL, transport=httpx.MockTransport(respond), **options)

    def call(self, method, *arguments, **options):
        with self._client as client:
            return getattr(client, method)(*arguments, **options)


class Tasks:
    """Drives the client in tasks; what it is answered blocks no other task."""

    def __init__(self, respond, **options):
        async def respond_in_thread(request):
            await request.aread()
            return await asyncio.to_thread(respond, request)

        transport = httpx.MockTransport(respond_in_thread)
        self._client = AsyncClient(URL, transport=transport, **options)

    def call(self, method, *arguments, **options):
        async def main():
            async with self._client as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(main())


@pytest.fixture(params=[Threads, Tasks])
def make(request):
    return request.param


FAST = Retries(first_s=0.001)


def test_both_clients_take_the_same_arguments():
    for method in ("__init__", "score", "score_series"):
        of_threads, of_tasks = (
            inspect.signature(getattr(kind, method)) for kind in (Client, AsyncClient)
        )
        assert of_threads == of_tasks


def test_scores_come_in_the_order_of_series_whichever_answer_is_first(make):
    seen = []

    def respond(request):
        seen.append(request)
        time.sleep(0.02 if len(seen) % 2 else 0)
        return answer(request)

    client = make(respond, request_bytes=1000, concurrency=8)
    scores = client.call("score_series", SERIES, TARGETS, gradients=True)
    assert len(seen) > 10
    wanted = [losses_of(p, y) for p, y in zip(SERIES, TARGETS, strict=True)]
    for name in ("mae", "mape", "smape"):
        np.testing.assert_allclose(scores.losses[name], [losses[name][0] for losses in wanted])
        for found, losses in zip(scores.split(name), wanted, strict=True):
            np.testing.assert_allclose(found, losses[name][2])
    assert scores.lengths.tolist() == [len(series) for series in SERIES]


@pytest.mark.parametrize(
    ("losses", "sent"),
    [
        (None, None),
        (["mae", "smape:block_denom_grad=false"], "mae,smape:block_denom_grad=false"),
        (
            [{"name": "smape", "block_denom_grad": np.True_}, {"name": "mae"}],
            "smape:block_denom_grad=true,mae",
        ),
        (({"name": "mae", "delta": np.float32(1.5), "steps": 2},), "mae:delta=1.5:steps=2.0"),
    ],
)
def test_losses_pass_through(make, losses, sent):
    seen = []

    def respond(request):
        seen.append(request.url.params.get("losses"))
        return answer(request)

    frame = pa.table({"unique_id": ["a"], "ds": [1], "y": [1.0], "M": [3.0]})
    scores = make(respond).call("score", frame, cutoff_col=None, losses=losses)
    assert seen == [sent]
    assert scores["mae"].to_pylist() == [2]


def test_a_key_with_the_name_of_a_loss_that_nobody_named(make):
    frame = pa.table({"mae": ["a"], "ds": [1], "y": [1.0], "M": [3.0]})
    with pytest.raises(InvalidInput, match="the answer has a column 'mae' too"):
        make(answer).call("score", frame, id_col="mae", cutoff_col=None)


def test_what_is_sent(make):
    seen = []

    def respond(request):
        seen.append(request)
        return answer(request)

    client = make(respond, api_key="secret", headers={"traceparent": "00-1"}, deadline_s=30)
    client.call(
        "score_series",
        *([[1.0]], [[2.0]], None, ["smape", "mae"]),
        gradients=True,
        missing="skip",
        zero_division="skip",
        block_denom_grad=False,
    )
    (request,) = seen
    assert request.method == "POST"
    assert request.url.path == "/api/score"
    assert dict(request.url.params) == {
        "losses": "smape,mae",
        "gradients": "true",
        "missing": "skip",
        "zero_division": "skip",
        "block_denom_grad": "false",
        "group_columns": "series",
    }
    headers = request.headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["traceparent"] == "00-1"
    assert headers["user-agent"].startswith("lossclient/")
    assert headers["content-length"] == str(len(request.content))
    assert "transfer-encoding" not in headers
    assert 29_000 < int(headers["x-request-timeout-ms"]) <= 30_000
    assert max(request.extensions["timeout"][phase] for phase in ("read", "write")) <= 30
    assert request.extensions["timeout"]["connect"] == 10


def test_a_key_is_not_shown(make):
    assert "secret" not in repr(make(answer, api_key="secret")._client)


def test_what_takes_long_leaves_the_event_loop_alone(monkeypatch):
    """Else a large frame would hold up all tasks of the caller."""
    called = {}

    def watch(module, name):
        inner = getattr(module, name)

        def watched(*arguments, **options):
            called.setdefault(name, set()).add(threading.current_thread())
            return inner(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    for name in ("encode", "compress", "decode"):
        watch(wire, name)
    for name in ("read_frame", "write_frame", "read_series", "join", "scores_of"):
        watch(async_client, name)

    async def respond(request):
        raw = pa.input_stream(pa.BufferReader(await request.aread()), compression="gzip").read()
        return answer(httpx.Request("POST", request.url, content=raw))

    async def main():
        transport = httpx.MockTransport(respond)
        async with AsyncClient(URL, transport=transport, compression="gzip") as client:
            await client.score_series([[1.0]], [[2.0]])
            frame = {"unique_id": [1], "y": [1.0], "A": [1.0]}
            await client.score(pa.table(frame), time_col=None)

    asyncio.run(main())
    assert len(called) == 8
    assert threading.current_thread() not in set().union(*called.values())


def test_no_more_requests_at_a_time_than_allowed(make):
    lock = threading.Lock()
    now, most = 0, 0

    def respond(request):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return answer(request)

    make(respond, request_bytes=1000, concurrency=3).call("score_series", SERIES, TARGETS)
    assert most == 3


def test_retries(make):
    tries = {}

    def respond(request):
        name = request.headers["x-request-id"].rpartition("-")[0]
        tries[name] = tries.get(name, 0) + 1
        if tries[name] == 1:
            raise httpx.ReadError("reset")
        return problem(503) if tries[name] == 2 else answer(request)

    client = make(respond, request_bytes=1000, retries=FAST)
    scores = client.call("score_series", SERIES, TARGETS)
    assert len(scores.ids) == len(SERIES)
    assert set(tries.values()) == {3}


def test_pauses_are_what_the_policy_says(make, monkeypatch):
    pauses = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)

    patched = SimpleNamespace(Event=Event, Thread=threading.Thread)
    monkeypatch.setattr("lossclient.client.threading", patched)

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("lossclient.async_client.anyio.sleep", sleep)
    replies = iter([problem(429, headers={"retry-after": "20"}), None])
    client = make(
        lambda request: next(replies) or answer(request), retries=Retries(first_s=1e-9, most_s=1e-9)
    )
    client.call("score_series", [[1.0]], [[2.0]])
    assert pauses == [pytest.approx(20)]


def test_the_first_failure_ends_the_call(make):
    sent = []

    def respond(request):
        sent.append(request)
        if len(sent) == 1:
            return problem(422)
        time.sleep(0.005)
        return answer(request)

    client = make(respond, request_bytes=1, concurrency=2)
    with pytest.raises(InvalidValues):
        client.call("score_series", SERIES, TARGETS)
    assert len(sent) < len(SERIES) / 2


def test_the_deadline_ends_a_call_whatever_hangs(make):
    release = threading.Event()

    def respond(request):
        release.wait(30)
        return answer(request)

    client = make(respond, deadline_s=0.2)
    started = time.monotonic()
    try:
        if make is Threads:
            with pytest.raises(DeadlineExceeded):
                client._client.score_series([[1.0]], [[2.0]])
        else:
            # The thread of the mock, unlike a socket, cannot be left alone by the event loop.
            threading.Timer(0.5, release.set).start()
            with pytest.raises(DeadlineExceeded):
                client.call("score_series", [[1.0]], [[2.0]])
        assert time.monotonic() - started < 10
    finally:
        release.set()
        if make is Threads:
            client._client.close()


def test_the_deadline_ends_waiting_for_a_retry(make):
    busy = problem(503, headers={"retry-after": "30"})
    with pytest.raises(DeadlineExceeded) as caught:
        make(lambda _: busy, deadline_s=5).call("score_series", [[1.0]], [[2.0]])
    assert isinstance(caught.value.__cause__, Overloaded)


def test_a_failure_ends_pauses_of_other_parts():
    """Else the threads would hold up the end of the program."""
    second = threading.Event()

    def respond(request):
        if request.headers["x-request-id"].endswith("-0:1-0:1-1"):
            second.wait(10)
            return problem(422)
        second.set()
        return problem(503, headers={"retry-after": "50"})

    with (
        Client(URL, transport=httpx.MockTransport(respond), request_bytes=1) as client,
        pytest.raises(InvalidValues),
    ):
        client.score_series([[1.0], [2.0]], [[2.0], [3.0]])
    for thread in threading.enumerate():
        if thread.name.startswith("lossclient"):
            thread.join(5)
            assert not thread.is_alive()


def test_a_small_call_does_not_wait_for_a_large_one():
    gate, begun = threading.Event(), threading.Event()

    def respond(request):
        if len(pa.ipc.open_stream(request.content).read_all()) == 1:
            return answer(request)
        begun.set()
        gate.wait(10)
        return answer(request)

    with Client(URL, transport=httpx.MockTransport(respond), concurrency=2) as client:
        large = threading.Thread(target=client.score_series, args=(SERIES, TARGETS))
        large.start()
        assert begun.wait(10)
        scores = client.score_series([[1.0]], [[2.0]])
        assert large.is_alive()
        assert scores.losses["mae"].tolist() == [1]
        gate.set()
        large.join(10)


INTERRUPTED = """
import os, signal, socket, threading
from lossclient import Client
with socket.create_server(("127.0.0.1", 0)) as silent:
    connections = []  # or it would be closed, which is an answer
    def interrupt():
        connections.append(silent.accept()[0])
        connections[0].recv(1)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    Client(url, timeout=300, retries=0).score_series([[1.0]], [[2.0]])
"""


def test_ctrl_c_does_not_wait_for_a_server_that_does_not_answer():
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=60, check=False, stderr=-1,
    )  # fmt: skip
    assert b"KeyboardInterrupt" in ended.stderr


FORKS = """
import os, sys, httpx
from fake_service import answer
from lossclient import Client
with Client("http://any", transport=httpx.MockTransport(answer)) as client:
    client.score_series([[1.0]], [[2.0]])
    child = os.fork()
    if not child:
        os._exit(int(client.score_series([[1.0]], [[3.0]]).losses["mae"][0]))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


FORKS_WHILE_BUSY = """
import os, sys, threading
from contextlib import contextmanager
from tqdm.auto import tqdm
from lossclient import Client
client = Client(sys.argv[1], request_bytes=1, concurrency=3)
def score(p):
    return client.score_series([[p]] * 6, [[0.0]] * 6, progress=False).losses["mae"].sum() == 6 * p
@contextmanager
def drawing():  # a thread that the child does not have draws a bar, and so holds the lock of all
    is_locked, done = threading.Event(), threading.Event()
    def hold():
        with tqdm.get_lock():
            is_locked.set()
            done.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    is_locked.wait()
    yield
    if os.getpid() == parent:
        done.set()
        thread.join()
parent = os.getpid()
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert score(3.0)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
failed = 0
for p in range(1, 13):
    with drawing():
        child = os.fork()
    if not child:
        ok = []
        threads = [threading.Thread(target=lambda: ok.append(score(float(p)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(ok != [True, True])
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join()
sys.exit(failed)
"""


def test_threads_do_not_share_a_connection(monkeypatch):
    """Httpcore closes one that a thread has just begun to use, for looking idle to another."""
    busy, lock = set(), threading.Lock()

    class Alone(httpx.Client):
        def send(self, *arguments, **options):
            with lock:
                assert self not in busy
                busy.add(self)
            try:
                return super().send(*arguments, **options)
            finally:
                with lock:
                    busy.discard(self)

    monkeypatch.setattr(httpx, "Client", Alone)
    transport = httpx.MockTransport(answer)
    with (
        Client(URL, transport=transport, request_bytes=1, concurrency=3) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        calls = [pool.submit(client.score_series, SERIES, TARGETS) for _ in range(8)]
        assert all(len(call.result().ids) == len(SERIES) for call in calls)


def test_waiting_for_a_connection_ends_with_the_deadline():
    begun, release = threading.Event(), threading.Event()

    def blocked(request):
        begun.set()
        release.wait(30)
        return answer(request)

    transport = httpx.MockTransport(blocked)
    with Client(URL, transport=transport, concurrency=1, deadline_s=0.3) as client:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.score_series, [[1.0]], [[2.0]])
            assert begun.wait(30)
            second = pool.submit(client.score_series, [[1.0]], [[2.0]])
            for call in (first, second):
                with pytest.raises(DeadlineExceeded):
                    call.result()
        release.set()


def test_children_forked_amid_calls_neither_wait_nor_share_answers():
    """Whatever lock a thread holds at the time of a fork, the child never gets."""
    with listening() as url:
        done = subprocess.run(
            [sys.executable, "-c", FORKS_WHILE_BUSY, url],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=240, check=False,
        )  # fmt: skip
    assert done.returncode == 0


def test_a_client_works_in_a_child_that_was_forked():
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2


@pytest.fixture(params=[None, "thread"])
def run(request):
    """Run a coroutine in an event loop of its own, in this thread or another one."""

    def call(coroutine):
        if request.param is None:
            return asyncio.run(coroutine)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, coroutine).result()

    return call


def test_an_async_client_outlives_event_loops(run):
    connections = set()

    def counted(connection, request):
        connections.add(connection)
        return respond(connection, request)

    async def twice(p):
        return [(await client.score_series([[p]], [[0.0]])).losses["mae"][0] for _ in range(2)]

    with listening(counted) as url:
        client = AsyncClient(url)
        assert [run(twice(p)) for p in (1.0, 2.0, 3.0)] == [[1.0] * 2, [2.0] * 2, [3.0] * 2]
    assert len(connections) == 3
    asyncio.run(client.aclose())
    with pytest.raises(InvalidInput, match="client is closed"):
        asyncio.run(twice(1.0))


def test_an_async_client_works_in_several_event_loops_at_a_time():
    meet = threading.Barrier(3, timeout=30)

    def together(connection, request):
        meet.wait()
        return respond(connection, request)

    async def mae(p):
        return (await client.score_series([[p]], [[0.0]])).losses["mae"][0]

    with listening(together) as url, ThreadPoolExecutor(3) as pool:
        client = AsyncClient(url)
        for _ in range(2):
            found = pool.map(lambda p: asyncio.run(mae(p)), (1.0, 2.0, 3.0))
            assert list(found) == [1.0, 2.0, 3.0]


def test_an_async_client_that_nobody_closes_is_closed_with_its_event_loop():
    disconnected = threading.Event()

    def one_connection(connection, request):
        finish = connection.finish
        connection.finish = lambda: (finish(), disconnected.set())
        return respond(connection, request)

    async def main():
        client = AsyncClient(url)
        await client.score_series([[1.0]], [[0.0]])
        assert not disconnected.is_set()
        return client

    with listening(one_connection) as url:
        client = asyncio.run(main())
        assert disconnected.wait(30)
    assert repr(client) == f"AsyncClient({url!r})"


def test_copies_are_the_client_itself():
    for client in (Client(URL), AsyncClient(URL)):
        assert copy.copy(client) is client
        assert copy.deepcopy({"loss": [client]})["loss"][0] is client


SECRETS = {"api_key": "k3y", "headers": {"X-Api-Key": "h3ader"}}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("dump", [pickle.dumps, lambda client: pickle.dumps([client], protocol=2)])
@pytest.mark.parametrize(
    "secret", [{"api_key": "k3y"}, {"base_url": "http://me:passw0rd@service.test/api"}]
)
def test_a_pickle_holds_no_secrets(kind, dump, secret):
    transport = httpx.MockTransport(answer)
    options = {"base_url": "http://service.test/api", **SECRETS, "api_key": None, **secret}
    client = kind(transport=transport, **options)
    pickled = dump(client)
    for text in (b"k3y", b"h3ader", b"passw0rd", b"me:"):
        assert text not in pickled
    assert b"http://service.test/api" in pickled
    assert repr(client) == f"{kind.__name__}('http://service.test/api')"
    assert "3" not in repr(client)


def reloaded(client):
    return pickle.loads(pickle.dumps(client))  # noqa: S301 - it was made here


def test_a_client_without_secrets_works_out_of_a_pickle():
    settings = {
        "timeout": httpx.Timeout(5),
        "deadline_s": 9,
        "retries": Retries(2),
        "concurrency": 3,
    }
    with listening() as url, Client(url, **settings) as client:
        client.score_series([[1.0]], [[2.0]])
        with reloaded(client) as other:
            assert other.score_series([[1.0]], [[2.0]]).losses["mae"].tolist() == [1.0]
            for name, value in settings.items():
                assert getattr(other, name) == value
        found = asyncio.run(reloaded(AsyncClient(url)).score_series([[1.0]], [[2.0]]))
    assert found.losses["mae"].tolist() == [1.0]


def test_a_key_comes_out_of_the_environment_where_a_pickle_is_loaded(monkeypatch):
    def with_key(connection, request):
        found = request.headers.get("authorization") == "Bearer k3y"
        return respond(connection, request) if found else problem(401)

    monkeypatch.delenv("LOSSCLIENT_API_KEY", raising=False)
    with listening(with_key) as url:
        client = reloaded(Client(url, api_key="k3y"))
        with pytest.raises(InvalidInput, match=r"not hold its api_key: .* set LOSSCLIENT_API_KEY"):
            client.score_series([[1.0]], [[2.0]])
        client = reloaded(client)  # a second time
        monkeypatch.setenv("LOSSCLIENT_API_KEY", "k3y")
        with client:
            assert client.score_series([[1.0]], [[2.0]]).losses["mae"].tolist() == [1.0]
        with Client(url) as other, pytest.raises(Unauthorized):  # which had none
            other.score_series([[1.0]], [[2.0]])


@pytest.mark.parametrize(
    "more",
    [{"headers": {"X-Tenant": "a"}}, {"transport": httpx.MockTransport(answer)}, {**SECRETS}],
)
def test_what_a_pickle_lacks_is_named_when_the_client_is_used(more, monkeypatch):
    monkeypatch.setenv("LOSSCLIENT_API_KEY", "k3y")
    client = reloaded(Client(URL, **more))
    missing = next(name for name in more if name != "api_key")
    with pytest.raises(InvalidInput, match=f"not hold its {missing}: make another one here$"):
        client.score_series([[1.0]], [[2.0]])


SPAWNED = """
import multiprocessing, sys
from lossclient import Client
def mae(client, p):
    return client.score_series([[p]], [[0.0]]).losses["mae"][0]
if __name__ == "__main__":
    with Client(sys.argv[1]) as client:
        assert mae(client, 1.0) == 1.0
        for method in ("spawn", "fork"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                found = pool.starmap(mae, [(client, float(p)) for p in range(1, 9)])
            assert found == list(range(1, 9)), found
"""


def test_pools_of_processes_get_a_client_as_an_argument(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    with listening() as url:
        subprocess.run(
            [sys.executable, script, url],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)}, timeout=60, check=True,
        )  # fmt: skip


def test_a_closed_client_says_so(make):
    client = make(answer)
    client.call("score_series", [[1.0]], [[2.0]])  # closes it
    for method, arguments in (
        ("score_series", ([[1.0]], [[2.0]])),
        ("score_series", ([], [])),
        ("score", (pa.table({"unique_id": [1], "y": [1.0], "A": [1.0]}), ["A"], "unique_id", None)),
    ):
        with pytest.raises(InvalidInput, match="client is closed"):
            client.call(method, *arguments)


def test_a_client_that_is_closed_between_two_attempts_says_so(make):
    def respond(request):
        if make is Threads:
            client._client.close()
        else:  # another task of the event loop
            client._client._closed = True
        return problem(503)

    client = make(respond, retries=FAST)
    with pytest.raises(InvalidInput, match="client is closed"):
        client.call("score_series", [[1.0]], [[2.0]])


def test_a_client_that_another_thread_closes_just_before_it_sends_says_so(monkeypatch):
    client = Client(URL, transport=httpx.MockTransport(answer))
    request_of = BaseClient._request

    def request_and_close(*arguments):
        client.close()
        return request_of(*arguments)

    monkeypatch.setattr(BaseClient, "_request", request_and_close)
    with pytest.raises(InvalidInput, match="client is closed"):
        client.score_series([[1.0]], [[2.0]])


def test_an_error_of_a_transport_is_raised(make):
    def respond(request):
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        make(respond).call("score_series", [[1.0]], [[2.0]])


def test_a_refused_size_is_remembered_by_the_client():
    refused = 0

    def respond(request):
        nonlocal refused
        if len(request.content) > 2000:
            refused += 1
            return problem(413)
        return answer(request)

    with Client(URL, transport=httpx.MockTransport(respond), concurrency=1) as client:
        first = client.score_series(SERIES, TARGETS)
        assert refused
        refused = 0
        second = client.score_series(SERIES, TARGETS)
    assert refused == 0
    np.testing.assert_array_equal(first.losses["mae"], second.losses["mae"])


def test_several_threads_may_share_a_client():
    with Client(URL, transport=httpx.MockTransport(answer), request_bytes=1000) as client:
        found = [None] * 6

        def work(i):
            found[i] = client.score_series(SERIES[i:], TARGETS[i:]).losses["mae"]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(1, 6):
        np.testing.assert_array_equal(found[i], found[0][i:])


def test_no_series_still_asks_for_the_columns(make):
    scores = make(answer).call("score_series", [], [], gradients=True)
    assert list(scores.losses) == ["mae", "mape", "smape"]
    assert len(scores.losses["mae"]) == len(scores.ids) == 0
    assert scores.split("mae") == []


def test_transport_errors_have_their_cause(make):
    def respond(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(TransportError, match="refused") as caught:
        make(respond, retries=0).call("score_series", [[1.0]], [[2.0]])
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert caught.value.request_id.startswith("lossclient-")


@pytest.fixture
def refused():
    """Return a URL that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(params=[Client, AsyncClient])
def score(request):
    """Return a function that makes a client and scores one element with it."""

    def call(url, p=1.0, **options):
        client = request.param(url, **options)
        if isinstance(client, Client):
            with client:
                return client.score_series([[p]], [[2.0]]).losses["mae"].tolist()

        async def main():
            async with client:
                return (await client.score_series([[p]], [[2.0]])).losses["mae"].tolist()

        return asyncio.run(main())

    return call


def test_what_the_system_says_is_in_the_message(score, refused):
    for options, kind in (
        ({"retries": 0}, TransportError),
        ({"deadline_s": 0.2}, DeadlineExceeded),
    ):
        with pytest.raises(kind, match=f"no answer from {refused} .*Connection refused"):
            score(refused, **options)


def test_a_deadline_names_who_did_not_answer(score):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match=url):
            score(url, deadline_s=0.2)


def test_a_connection_that_is_one_answer_behind_is_dropped(make):
    """Each attempt over it would get the answer to the one before."""
    connections = []

    def one_behind(connection, request):
        if connection not in connections:
            connections.append(connection)
            connection.last = respond(connection, request)
        last, connection.last = connection.last, respond(connection, request)
        return last

    with listening(one_behind) as url:
        if make is Threads:
            with Client(url, retries=FAST) as client:
                found = [client.score_series([[p]], [[0.0]]).losses["mae"][0] for p in (1.0, 2.0)]
        else:

            async def main():
                async with AsyncClient(url, retries=FAST) as client:
                    return [
                        (await client.score_series([[p]], [[0.0]])).losses["mae"][0]
                        for p in (1.0, 2.0)
                    ]

            found = asyncio.run(main())
    assert found == [1.0, 2.0]
    assert len(connections) == 2


def test_a_progress_bar_is_shown_when_asked_for(make, capsys):
    make(answer).call("score_series", SERIES, TARGETS)
    assert capsys.readouterr().err == ""  # not a terminal
    make(answer).call("score_series", SERIES, TARGETS, progress=True)
    shown = capsys.readouterr().err
    assert "score" in shown
    assert "60.0/60.0" in shown
    make(answer).call("score_series", SERIES, TARGETS, progress=False)
    assert capsys.readouterr().err == ""


def test_a_progress_bar_is_shown_on_a_terminal(make, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def slow(request):
        time.sleep(0.06)
        return answer(request)

    for delay, shown in ((0, True), (60, False)):  # what is done at once shows none
        monkeypatch.setattr("lossclient.progress._SHOWN_AFTER_S", delay)
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        make(slow, request_bytes=5000).call("score_series", SERIES, TARGETS)
        assert ("score" in terminal.getvalue()) is shown


def test_bodies_go_out_in_pieces():
    seen = []

    class Transport(httpx.BaseTransport):
        def handle_request(self, request):
            seen.extend(map(len, request.stream))
            return problem(400)

    client = Client(URL, transport=Transport())
    with client, pytest.raises(BadRequest):
        client.score_series(np.ones((1, 50_000)), np.ones((1, 50_000)))
    assert sum(seen) > 800_000
    assert max(seen) == 1 << 18

"""The client in threads."""

import functools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, TypeVarTuple, cast
from weakref import WeakSet

import httpx
import pyarrow as pa

from lossclient.async_client import AsyncClient
from lossclient.base_client import BaseClient, chunks_of
from lossclient.exchange import Answers, Outcome, Pause, Post, Rules, Step, exchange
from lossclient.forecasts import Forecasts
from lossclient.plan import join, plan
from lossclient.progress import progress_bar
from lossclient.reading import BoundedTransport, Reply
from lossclient.wire import Part

P = ParamSpec("P")
T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return a method of `AsyncClient` as one of `Client`, whose `_run` and `_answer` block."""

    @functools.wraps(method)
    def blocking(self: Any, /, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            method(self, *arguments, **options).send(None)
        except StopIteration as end:
            return cast("T", end.value)
        raise AssertionError("it waits for an event loop")

    return blocking


class _Connections:
    """As many as there may be requests at a time, each in an httpx client of its own.

    Threads must not share one: httpcore may look at a connection that is idle, find it readable
    because another thread has meanwhile sent a request and got its answer, and close it for that.
    The other thread then waits until it times out.
    """

    def __init__(self, make: Callable[[], httpx.Client], limit: int) -> None:
        self._make = make
        self._made: list[httpx.Client] = []
        self._idle: queue.LifoQueue[httpx.Client | None] = queue.LifoQueue()
        for _ in range(limit):
            self._idle.put(None)

    @contextmanager
    def borrow(self, within_s: float | None) -> Iterator[httpx.Client]:
        """Lend one to a thread.

        Raises:
            httpx.PoolTimeout: If none is free in time.
        """
        try:
            http = self._idle.get(timeout=within_s)
        except queue.Empty:
            raise httpx.PoolTimeout(f"{len(self._made)} connections are busy") from None
        try:
            if http is None:
                http = self._make()
                self._made.append(http)
            yield http
        finally:
            self._idle.put(http)

    def close(self) -> None:
        for http in self._made:
            http.close()


class Client(BaseClient):
    """Scores forecasts at a service; may be used from several threads at once.

    A child of a fork may use it too: it opens connections of its own, except through a `transport`.
    A copy is the client itself. A pickle holds the URL of the service and the settings, but no key,
    no headers, no transport: where it is loaded, a key is taken from ``LOSSCLIENT_API_KEY``, and a
    client that lacks anything else, or the key, raises `InvalidInput` when it is used.

    Requests go by way of the proxy in ``HTTP_PROXY``, ``HTTPS_PROXY`` or ``ALL_PROXY``, unless
    ``NO_PROXY`` names the service; https trusts ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``, if set.

    Args:
        base_url: Where the service is, like ``http://127.0.0.1:8000``; it may have a path.
        api_key: Sent as a bearer token; not beside a name and password in ``base_url``.
        timeout: Seconds for each write, for the head of an answer and again for its body, to which
            each KiB adds one, and at most 10 for connecting; or an ``httpx.Timeout``.
        deadline_s: Seconds for a whole call, retries included. What is left of it goes to the
            service with every attempt, which then computes nothing that comes too late.
        retries: Attempts of a request after the first, or `Retries` in full.
        concurrency: Requests at a time, of all calls together.
        request_bytes: The most bytes of a request together with the gradients asked for; larger
            calls are split between series, and a series that is larger between its models.
        compression: ``zstd`` or ``gzip`` for the bodies of requests; pays on slow networks.
        headers: Further headers of every request.
        transport: httpx's, for tests and unusual networks.

    Raises:
        InvalidInput: If one of them makes no sense, or the environment's proxy or certificates
            cannot be used.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     scores = client.score_series([[102.0, 118.5], [0.5]], [[100.0, 120.0], [0.0]])
        >>> scores.losses["mae"]
        array([1.75, 0.5 ])
    """

    _stacklevel: ClassVar[int] = 4

    score = _blocking(AsyncClient.score)
    score_series = _blocking(AsyncClient.score_series)

    def _connect(self) -> None:
        super()._connect()
        self._renew_connections()
        _CLIENTS.add(self)

    def _renew_connections(self) -> None:
        self._connections = _Connections(
            lambda: httpx.Client(**self._httpx_options(BoundedTransport)), self.concurrency
        )

    def close(self) -> None:
        """Close all connections of this process; the client cannot be used any more."""
        self._closed = True
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        return function(*arguments)

    async def _answer(self, forecasts: Forecasts, rules: Rules, *, show: bool | None) -> pa.Table:
        """Return a row for each series and model, the models of a series together."""
        self._check_open()
        waiting = deque(plan(forecasts, rules.options, self.request_bytes))
        count, stop = len(waiting), threading.Event()
        results: queue.SimpleQueue[tuple[Part, Answers | BaseException]] = queue.SimpleQueue()

        def work() -> None:
            with suppress(IndexError):  # nothing is left to do
                while not stop.is_set():
                    part = waiting.popleft()
                    try:
                        results.put((part, self._drive(exchange(forecasts, part, rules), stop)))
                    except BaseException as error:  # noqa: BLE001 - raised below
                        results.put((part, error))

        answers: dict[Part, Answers] = {}
        try:
            with progress_bar(forecasts, show) as bar:
                if count == 1 and rules.deadline is None:  # nothing to do meanwhile
                    work()
                else:
                    # Of this call only: a small one must not wait behind a large one, and threads
                    # do not survive a fork. Daemons: Ctrl-C must not wait for a hung server.
                    for n in range(min(self.concurrency, count)):
                        threading.Thread(target=work, name=f"lossclient-{n}", daemon=True).start()
                while len(answers) < count:
                    try:
                        part, result = results.get(timeout=rules.left_s())
                    except queue.Empty:
                        raise rules.unanswered()  # noqa: B904 - it has the cause that counts
                    if isinstance(result, BaseException):
                        raise result
                    answers[part] = result
                    bar.update(part.rows)
        finally:
            stop.set()
        return join(forecasts, answers)

    def _drive(self, steps: Generator[Step, Outcome, Answers], stop: threading.Event) -> Answers:
        """Do what the steps say, until they return."""
        outcome: Outcome = None
        while not stop.is_set():
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast("Answers", end.value)
            if isinstance(step, Pause):
                stop.wait(step.seconds)
                outcome = None
            else:
                outcome = self._post(step)
        return []  # the call has ended

    def _post(self, post: Post) -> Reply | httpx.RequestError:
        self._check_open()
        reading = self._reading(post)
        try:
            with self._connections.borrow(post.within_s) as http, reading.by_this_thread():
                request = self._request(http, post, chunks_of(post.body))
                response = http.send(request, stream=True)
                try:
                    # An answer that is not read closes its connection, which is one answer behind.
                    if post.reads(response.headers):
                        reading.restart()
                        for chunk in response.iter_bytes():
                            if not reading.takes(chunk):
                                break
                finally:
                    response.close()
        except httpx.RequestError as error:
            return error
        except RuntimeError:
            self._check_open()  # another thread may have closed it
            raise
        return Reply(response.status_code, response.headers, reading.content)


_CLIENTS: WeakSet[Client] = WeakSet()


def _renew_connections() -> None:
    """Give a child of a fork connections of its own.

    Two processes that share one would read each other's answers, and a lock in it may be held by a
    thread that the child does not have. The parent's stay as they are.
    """
    for client in _CLIENTS:
        client._renew_connections()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_connections)

"""The client in tasks."""

from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
import httpx
import pyarrow as pa
from anyio.lowlevel import RunVar

from lossclient import wire
from lossclient.columns import Columns
from lossclient.configuration import REQUEST_BYTES, TIMEOUT_S, Configuration, Configured
from lossclient.exceptions import InvalidInput
from lossclient.exchange import Answers, Outcome, Pause, Post, Rules, Step, exchange
from lossclient.forecasts import Forecasts
from lossclient.frames import Duplicates, FrameT, read_frame, write_frame
from lossclient.options import ALL_LOSSES, Missing, ScoreOptions, ZeroDivision
from lossclient.plan import join, plan
from lossclient.problems import Reply
from lossclient.progress import progress_bar
from lossclient.retries import Retries
from lossclient.scores import Scores, scores_of
from lossclient.series import read_series
from lossclient.wire import Part


class _Connections(NamedTuple):
    """Those of a client in an event loop, and what closes them at the latest when it ends."""

    http: httpx.AsyncClient
    until_end: AsyncGenerator[None]


_OF_LOOP: RunVar["WeakKeyDictionary[AsyncClient, _Connections]"] = RunVar("lossclient")


class AsyncClient(Configured):
    """`Client`, to be awaited; it takes the same arguments and decides the same.

    Whatever takes long, from reading a frame to writing one, is done in threads, so that other
    tasks go on. It may be used from several event loops, one after the other or each in a thread:
    it has connections of its own in each, which are closed with the client, and otherwise when the
    loop ends.

    Example:
        >>> async def main():
        ...     async with AsyncClient("http://127.0.0.1:8000") as client:
        ...         return await client.score_series([[102.0, 118.5]], [[100.0, 120.0]])
        >>> anyio.run(main).losses["mae"]
        array([1.75])
    """

    def __init__(  # noqa: PLR0913 - one argument a choice
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = TIMEOUT_S,
        deadline_s: float | None = None,
        retries: int | Retries = 5,
        concurrency: int = 4,
        request_bytes: int = REQUEST_BYTES,
        compression: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._configuration = Configuration(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            deadline_s=deadline_s,
            retries=retries,
            concurrency=concurrency,
            request_bytes=request_bytes,
            compression=compression,
            headers=headers,
            transport=transport,
        )
        self._connect()
        self._make()

    def _connect(self) -> None:
        wire.prepare()
        self._closed = False

    def _make(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._configuration.for_httpx(httpx.AsyncHTTPTransport))

    async def score(  # noqa: PLR0913, PLR0917 - the order of utilsforecast's
        self,
        df: FrameT,
        models: Sequence[str] | None = None,
        id_col: str = "unique_id",
        time_col: str | None = "ds",
        target_col: str = "y",
        cutoff_col: str | None = "cutoff",
        losses: Sequence[str] = ALL_LOSSES,
        *,
        gradients: bool = False,
        missing: Missing = "error",
        zero_division: ZeroDivision = "zero",
        block_denom_grad: bool = True,
        exclude: Sequence[str] = (),
        duplicates: Duplicates = "error",
        progress: bool | None = None,
    ) -> FrameT:
        """Score a frame as `Client.score` does."""
        options = ScoreOptions(losses, gradients, missing, zero_division, block_denom_grad)
        rules = self._configuration.rules(options)
        columns = Columns(id_col, time_col, target_col, cutoff_col, models, exclude)
        reading = await anyio.to_thread.run_sync(read_frame, df, columns, losses, duplicates)
        reading.models.warn(stacklevel=3)
        answer = await self._answer(reading.forecasts, rules, show=progress)
        return cast("FrameT", await anyio.to_thread.run_sync(write_frame, reading, answer))

    async def score_series(  # noqa: PLR0913 - one argument a choice
        self,
        prediction: Any,
        target: Any,
        ids: Any = None,
        losses: Sequence[str] = ALL_LOSSES,
        *,
        gradients: bool = False,
        missing: Missing = "error",
        zero_division: ZeroDivision = "zero",
        block_denom_grad: bool = True,
        progress: bool | None = None,
    ) -> Scores:
        """Score series as `Client.score_series` does."""
        options = ScoreOptions(losses, gradients, missing, zero_division, block_denom_grad)
        rules = self._configuration.rules(options)
        forecasts, names = await anyio.to_thread.run_sync(read_series, prediction, target, ids)
        answer = await self._answer(forecasts, rules, show=progress)
        return await anyio.to_thread.run_sync(scores_of, answer, names)

    async def aclose(self) -> None:
        """Close all connections of this process; the client cannot be used any more."""
        self._closed = True
        connections = _of_this_loop().pop(self, None)
        if connections is not None:
            await connections.until_end.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _answer(self, forecasts: Forecasts, rules: Rules, *, show: bool | None) -> pa.Table:
        """Return a row for each series and model, the models of a series together."""
        answers: dict[Part, Answers] = {}
        failures: list[Exception] = []
        with progress_bar(forecasts, show) as bar:

            async def work() -> None:
                try:
                    while waiting:
                        part = waiting.popleft()
                        answers[part] = await self._drive(exchange(forecasts, part, rules))
                        bar.update(part.rows)
                except Exception as error:  # noqa: BLE001 - raised below, and not in a group
                    failures.append(error)
                    tasks.cancel_scope.cancel()

            waiting = deque(plan(forecasts, rules.options, self._configuration.request_bytes))
            with anyio.move_on_after(rules.left_s()) as time:
                async with anyio.create_task_group() as tasks:
                    for _ in range(min(self._configuration.concurrency, len(waiting))):
                        tasks.start_soon(work)
        if failures:
            raise failures[0]
        if time.cancelled_caught:
            server = f"{rules.server}{rules.via}"
            raise rules.late(f"the deadline has passed before {server} answered")
        return await anyio.to_thread.run_sync(join, forecasts, answers)

    async def _drive(self, steps: Generator[Step, Outcome, Answers]) -> Answers:
        """Do what the steps say, until they return; they encode and decode on the way."""
        outcome: Outcome = None
        while True:
            step = await anyio.to_thread.run_sync(_next, steps, outcome)
            if isinstance(step, list):
                return step
            if isinstance(step, Pause):
                await anyio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._post(step)

    async def _post(self, post: Post) -> Reply | httpx.RequestError:
        http = await self._http()
        request = self._configuration.request(http, post)
        try:
            response = await http.send(request, stream=True)
            try:
                # An answer that is not read closes its connection, which is one answer behind.
                body = await response.aread() if post.is_answered_by(response.headers) else b""
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            return error
        return Reply(response.status_code, response.headers, body)

    async def _http(self) -> httpx.AsyncClient:
        """Return the connections of this event loop; no other task runs meanwhile."""
        if self._closed:
            raise InvalidInput("the client is closed; make another one")
        of_loop = _of_this_loop()
        if self not in of_loop:
            http = self._make()
            of_loop[self] = _Connections(http, _until_end(http))
            await anext(of_loop[self].until_end)
        return of_loop[self].http


def _of_this_loop() -> "WeakKeyDictionary[AsyncClient, _Connections]":
    """Return the connections of all clients in the running event loop."""
    try:
        return _OF_LOOP.get()
    except LookupError:
        of_loop: WeakKeyDictionary[AsyncClient, _Connections] = WeakKeyDictionary()
        _OF_LOOP.set(of_loop)
        return of_loop


async def _until_end(http: httpx.AsyncClient) -> AsyncGenerator[None]:
    """Close connections when this is closed, as event loops do with all generators at their end."""
    try:
        yield
    finally:
        await http.aclose()


def _next(steps: Generator[Step, Outcome, Answers], outcome: Outcome) -> Step | Answers:
    """Return the next step or the answers, as no future takes the end of a generator."""
    try:
        return steps.send(outcome)
    except StopIteration as end:
        return cast("Answers", end.value)

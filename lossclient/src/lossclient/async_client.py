"""The client in tasks."""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

import anyio
import anyio.to_thread
import httpx
import pyarrow as pa

from lossclient.columns import Columns
from lossclient.configuration import REQUEST_BYTES, TIMEOUT_S, Configuration
from lossclient.exceptions import DeadlineExceeded
from lossclient.exchange import Answers, Outcome, Pause, Post, Rules, Step, exchange
from lossclient.forecasts import Forecasts
from lossclient.forks import PerProcess
from lossclient.frames import Duplicates, FrameT, read_frame, write_frame
from lossclient.options import ALL_LOSSES, Missing, ScoreOptions, ZeroDivision
from lossclient.plan import join, plan
from lossclient.problems import Reply
from lossclient.progress import progress_bar
from lossclient.retries import Retries
from lossclient.scores import Scores, scores_of
from lossclient.series import read_series
from lossclient.wire import Part


class AsyncClient:
    """`Client`, to be awaited; it takes the same arguments and decides the same.

    Whatever takes long, from reading a frame to writing one, is done in threads, so that other
    tasks go on. It belongs to the event loop that first uses it, as its connections do.

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
        )
        self._http = PerProcess(
            lambda: httpx.AsyncClient(**self._configuration.for_httpx(), transport=transport)
        )

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
        http = self._http.close()
        if http is not None:
            await http.aclose()

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
            raise DeadlineExceeded("the deadline has passed")
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
        http = self._http.get()
        request = self._configuration.request(http, post)
        try:
            response = await http.send(request)
        except httpx.RequestError as error:
            return error
        return Reply(response.status_code, response.headers, response.content)


def _next(steps: Generator[Step, Outcome, Answers], outcome: Outcome) -> Step | Answers:
    """Return the next step or the answers, as no future takes the end of a generator."""
    try:
        return steps.send(outcome)
    except StopIteration as end:
        return cast("Answers", end.value)

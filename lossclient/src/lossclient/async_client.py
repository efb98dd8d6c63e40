"""The client in tasks."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, TypeVarTuple, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
import httpx
import pyarrow as pa
from anyio.lowlevel import RunVar

from lossclient.arguments import NAMES, are_names, require
from lossclient.base_client import BaseClient, async_chunks_of
from lossclient.columns import Columns
from lossclient.comparison.pooling import columns_to_pool_by
from lossclient.exceptions import InvalidInput
from lossclient.exchange import Answers, Outcome, Pause, Post, Rules, Step, exchange
from lossclient.forecasts import Forecasts
from lossclient.frames import (
    Duplicates,
    FrameT,
    read_actuals,
    read_frame,
    read_history,
    scaled,
    side_by_side,
    write_frame,
)
from lossclient.options import SQUARED, Loss, Missing, ScoreOptions, ZeroDivision
from lossclient.plan import join, plan
from lossclient.progress import progress_bar
from lossclient.reading import SLOW, Reply
from lossclient.series import Scores, read_series, scores_of
from lossclient.wire import Part

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class _Connections(NamedTuple):
    """Those of a client in an event loop, and what closes them at the latest when it ends."""

    http: httpx.AsyncClient
    until_end: AsyncGenerator[None]


_OF_LOOP: RunVar["WeakKeyDictionary[AsyncClient, _Connections]"] = RunVar("lossclient")


class AsyncClient(BaseClient):
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

    _stacklevel: ClassVar[int] = 3
    """From a warning to the caller's line."""

    async def score(  # noqa: PLR0913, PLR0917 - the order of utilsforecast's
        self,
        df: FrameT,
        models: Sequence[str] | None = None,
        id_col: str = "unique_id",
        time_col: str | None = "ds",
        target_col: str = "y",
        cutoff_col: str | None = "cutoff",
        losses: Sequence[Loss] | None = None,
        *,
        gradients: bool = False,
        missing: Missing = "error",
        zero_division: ZeroDivision = "zero",
        block_denom_grad: bool = True,
        exclude: Sequence[str] = (),
        duplicates: Duplicates = "error",
        weight_col: str | None = None,
        scale_col: str | None = None,
        train_df: Any = None,
        seasonality: int | None = None,
        actuals: Any = None,
        on: Sequence[str] = (),
        by: str | Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> FrameT:
        """Score every model for every series of a frame, as ``cross_validation`` returns it.

        A series is the rows with one id and one cutoff, in the order of time, wherever they are.

        Args:
            df: A pandas, polars or pyarrow frame; any other with ``__arrow_c_stream__`` is
                answered by a pyarrow table. With pandas, id, cutoff and time may be in the index.
            models: Columns of predictions; by default all others of numbers in any type, but for
                indexes, forecast steps, prediction intervals and quantiles, by their names.
            id_col: Names a series; not null. Of floats, -0.0 and 0.0 are the same id, under the
                one that comes first, and all NaN are one; but with pandas NaN is null.
            time_col: Orders its rows; None takes them as they come.
            target_col: The actual values.
            cutoff_col: Names a series together with the id; no error where the default is absent.
            losses: Such as ``"mae"``, ``"huber:delta=1.5"`` or ``{"name": "huber", "delta": 1.5}``;
                those of the service by default: mae, mape and smape.
            gradients: Whether to return d loss / d prediction of every element.
            missing: What a null, NaN or infinite element does: ``error``, ``skip`` (leave the
                mean) or ``propagate`` (darts' semantics).
            zero_division: What an element without a finite quotient does: ``zero`` (as darts) or
                ``skip``.
            block_denom_grad: Of smape; only gradients depend on it.
            exclude: Columns that are no models, where ``models`` names none.
            duplicates: What several rows of one id, cutoff and time do: ``error``, or ``allow``.
            weight_col: What each element weighs, finite and at least 0: a loss is then the weighted
                mean, null where all weights are 0.
            scale_col: What mase and rmsse are divided by, the same in all rows of a series.
            train_df: In place of it, a frame of past values (id, time and target), of which their
                scales are made: of no row after the cutoff of a series or, without cutoffs, not
                before its first row.
            seasonality: How many rows of ``train_df`` a season has.
            actuals: The actual values, if they are not in ``df``: a frame with a row for each
                ``on``, and the column ``target_col``. Rows of ``df`` that have none are not scored.
            on: The columns by which rows of the two belong together, compared by value; id and time
                by default.
            by: Columns to pool elements by, over all series, in place of id and cutoff;
                ``horizon``, where there is no such column, is the place of a row in its series by
                time, from 1. A group goes in one request.
            progress: Whether to show a bar; None does on a terminal.

        Returns:
            The same kind of frame, a row for each series and model: id, cutoff (if the frame has
            one), ``model``, ``length``, a column a loss (null where no element is left),
            ``<loss>_masked`` (elements without a finite quotient, and all of a series that has
            nothing to divide by; with weights, for each loss) and ``<loss>_gradient`` (a list
            in the order of time). Series come as their ids appear first; groups of ``by`` in
            ascending order, with the same bits in whatever order the rows are.

        Raises:
            LossClientError: See `lossclient.exceptions`.

        Warns:
            LeftOutWarning: If columns were taken for no models; it names them, and what is scored.
            UnmatchedWarning: If rows have no actual value, where these are apart; it counts them.

        Example:
            >>> import pandas as pd
            >>> from lossclient import Client
            >>> df = pd.DataFrame({
            ...     "unique_id": ["a", "a"], "ds": [1, 2], "cutoff": [0, 0],
            ...     "y": [100.0, 120.0], "Naive": [102.0, 118.5], "Theta": [100.0, 121.0],
            ... })
            >>> with Client("http://127.0.0.1:8000") as client:
            ...     client.score(df, losses=["mae"])
              unique_id  cutoff  model  length   mae
            0         a       0  Naive       2  1.75
            1         a       0  Theta       2  0.50
        """
        options = ScoreOptions(losses, gradients, missing, zero_division, block_denom_grad)
        rules = self._rules(options)
        if train_df is not None:
            _check_history(options, scale_col, seasonality)
        elif seasonality is not None:
            raise InvalidInput("seasonality is that of train_df, which is not given")
        _check_on(actuals, on, time_col)
        if by is not None and gradients:
            raise InvalidInput("gradients are of series; leave out by")
        if by is not None and (scale_col is not None or train_df is not None):
            raise InvalidInput("scales are of series; leave out by")
        pooled = None if by is None else columns_to_pool_by(by)
        roles = id_col, time_col, target_col, cutoff_col, models, exclude, weight_col, scale_col
        columns = Columns(*roles, pooled)
        values = None
        if actuals is not None:
            joined = list(on) or [id_col, str(time_col)]
            values = await self._run(read_actuals, actuals, joined, target_col)
        names = options.names or ()
        reading = await self._run(read_frame, df, columns, names, duplicates, values)
        reading.warn(self._stacklevel)
        if train_df is None:
            answer = await self._answer(reading.forecasts, rules, show=progress)
        else:
            history = await self._run(read_history, train_df, columns, seasonality)
            answers = []
            for part, forecasts in await self._run(scaled, reading, history, options):
                answers.append(
                    await self._answer(forecasts, replace(rules, options=part), show=progress)
                )
            answer = side_by_side(answers, options.names or ())
        return cast("FrameT", await self._run(write_frame, reading, answer))

    async def score_series(  # noqa: PLR0913 - one argument a choice
        self,
        prediction: Any,
        target: Any,
        ids: Any = None,
        losses: Sequence[Loss] | None = None,
        *,
        gradients: bool = False,
        missing: Missing = "error",
        zero_division: ZeroDivision = "zero",
        block_denom_grad: bool = True,
        weights: Any = None,
        scales: Any = None,
        progress: bool | None = None,
    ) -> Scores:
        """Score series that are lists of lists, lists of arrays, or the rows of an array.

        Args:
            prediction: Numbers of any type for each series; one with several channels (T x C)
                counts T times C elements.
            target: Of the same shapes. None is a missing element, as are NaN and NA, and what numpy
                masks.
            ids: For errors, and given back; positions by default.
            losses: As in `score`, like all that follow.
            gradients: See there.
            missing: See there.
            zero_division: See there.
            block_denom_grad: See there.
            weights: What each element weighs, of the shapes of the target, finite and at least 0.
            scales: What mase and rmsse are divided by, a number for each series.
            progress: See there.

        Returns:
            Arrays in the order of series. Numbers are computed in float32 if that holds both sides
            by their types, as it does half and integers of 8 and 16 bits, in double otherwise.
            Gradients are float32 for predictions of float32 or half, and where all is.

        Raises:
            LossClientError: See `lossclient.exceptions`; a series without elements is
                `InvalidInput`.
        """
        rules = self._rules(
            ScoreOptions(losses, gradients, missing, zero_division, block_denom_grad)
        )
        forecasts, names = await self._run(read_series, prediction, target, ids, weights, scales)
        answer = await self._answer(forecasts, rules, show=progress)
        return await self._run(scores_of, answer, names)

    async def aclose(self) -> None:
        """Close all connections of this process; the client cannot be used any more."""
        self._closed = True
        connections = _of_this_loop().pop(self, None)
        if connections is not None:
            await connections.until_end.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call a function that takes long."""
        return await anyio.to_thread.run_sync(function, *arguments)

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

            waiting = deque(plan(forecasts, rules.options, self.request_bytes))
            with anyio.move_on_after(rules.left_s()) as time:
                async with anyio.create_task_group() as tasks:
                    for _ in range(min(self.concurrency, len(waiting))):
                        tasks.start_soon(work)
        if failures:
            raise failures[0]
        if time.cancelled_caught:
            raise rules.unanswered()
        return await self._run(join, forecasts, answers)

    async def _drive(self, steps: Generator[Step, Outcome, Answers]) -> Answers:
        """Do what the steps say, until they return; they encode and decode on the way."""
        outcome: Outcome = None
        while True:
            step = await self._run(_next, steps, outcome)
            if isinstance(step, list):
                return step
            if isinstance(step, Pause):
                await anyio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._post(step)

    async def _post(self, post: Post) -> Reply | httpx.RequestError:
        http = await self._http()
        reading = self._reading(post)

        def wait() -> None:
            reading.restart()
            scope.deadline = anyio.current_time() + reading.left_s()

        try:
            with anyio.CancelScope() as scope:
                request = self._request(http, post, async_chunks_of(post.body, wait))
                response = await http.send(request, stream=True)
                try:
                    # An answer that is not read closes its connection, which is one answer behind.
                    if post.reads(response.headers):
                        wait()
                        async for chunk in response.aiter_bytes():
                            if not reading.takes(chunk):
                                break
                            scope.deadline = anyio.current_time() + reading.left_s()
                finally:
                    await response.aclose()
        except httpx.RequestError as error:
            return error
        if scope.cancelled_caught:
            return httpx.ReadTimeout(SLOW)
        return Reply(response.status_code, response.headers, reading.content)

    async def _http(self) -> httpx.AsyncClient:
        """Return the connections of this event loop; no other task runs meanwhile."""
        self._check_open()
        of_loop = _of_this_loop()
        if self not in of_loop:
            http = httpx.AsyncClient(**self._httpx_options(httpx.AsyncHTTPTransport))
            of_loop[self] = _Connections(http, _until_end(http))
            await anext(of_loop[self].until_end)
        return of_loop[self].http


def _check_history(options: ScoreOptions, scale_col: str | None, seasonality: int | None) -> None:
    if seasonality is None:
        raise InvalidInput("train_df has a seasonality: pass it")
    if scale_col is not None:
        raise InvalidInput("scale_col and train_df both say what the scales are; give one")
    if not SQUARED.keys() & set(options.names or ()):
        raise InvalidInput("none of the losses asked for takes train_df: mase and rmsse do")


def _check_on(actuals: Any, on: Sequence[str], time_col: str | None) -> None:
    require(are_names(on), "on", NAMES, on)
    if actuals is None and on:
        raise InvalidInput("on is for actuals, which are not given")
    if actuals is not None and not on and time_col is None:
        raise InvalidInput("on must name the columns by which actuals are found, without a time")


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

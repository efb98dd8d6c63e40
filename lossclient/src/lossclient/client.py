"""The client in threads."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, cast

import httpx
import pyarrow as pa

from lossclient import wire
from lossclient.columns import Columns
from lossclient.configuration import REQUEST_BYTES, TIMEOUT_S, Configuration, Configured
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


class _StoppedError(Exception):
    """Another part of the call failed, so nobody waits for this one."""


class _Connections:
    """One for each request at a time, each in an httpx client of its own.

    Threads must not share one: httpcore may look at a connection that is idle, find it readable
    because another thread has meanwhile sent a request and got its answer, and close it for that.
    The other thread then waits until it times out.
    """

    def __init__(self, make: Callable[[], httpx.Client], most: int) -> None:
        self._make = make
        self._made = [make()]
        self._idle: queue.LifoQueue[httpx.Client | None] = queue.LifoQueue()
        for _ in range(most - 1):
            self._idle.put(None)
        self._idle.put(self._made[0])

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


class Client(Configured):
    """Scores forecasts at a service; may be used from several threads at once.

    A child of a fork may use it too: it opens connections of its own, except through a `transport`.
    A copy is the client itself. A pickle holds where the service is and how to ask it, but no key,
    no headers, no transport: where it is loaded, a key is taken from ``LOSSCLIENT_API_KEY``, and a
    client that lacks anything else, or the key, raises `InvalidInput` when it is used.

    Requests go by way of the proxy in ``HTTP_PROXY``, ``HTTPS_PROXY`` or ``ALL_PROXY``, unless
    ``NO_PROXY`` names the service; https trusts ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``, if set.

    Args:
        base_url: Where the service is, like ``http://127.0.0.1:8000``; it may have a path.
        api_key: Sent as a bearer token.
        timeout: Seconds for each read and write, and at most 10 for connecting; or an
            ``httpx.Timeout``.
        deadline_s: Seconds for a whole call, retries included. What is left of it goes to the
            service with every attempt, which then computes nothing that comes too late.
        retries: Attempts of a request after the first, or `Retries` in full.
        concurrency: Requests at a time, of all calls together.
        request_bytes: The most bytes of a request together with the gradients asked for; larger
            calls are split between series, and a series that is larger between its models.
        compression: ``zstd`` or ``gzip`` for the bodies of requests; pays on slow networks.
        headers: Further ones for every request.
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
        transport: httpx.BaseTransport | None = None,
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
        self._http.get()

    def _connect(self) -> None:
        wire.prepare()
        self._http = PerProcess(lambda: _Connections(self._make, self._configuration.concurrency))

    def _make(self) -> httpx.Client:
        return httpx.Client(**self._configuration.for_httpx(httpx.HTTPTransport))

    def score(  # noqa: PLR0913, PLR0917 - the order of utilsforecast's
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
            losses: Names of losses.
            gradients: Whether to return d loss / d prediction of every element.
            missing: What a null, NaN or infinite element does: ``error``, ``skip`` (leave the
                mean) or ``propagate`` (darts' semantics).
            zero_division: What an element without a finite quotient does: ``zero`` (as darts) or
                ``skip``.
            block_denom_grad: Of smape; only gradients depend on it.
            exclude: Columns that are no models, where ``models`` names none.
            duplicates: What several rows of one id, cutoff and time do: ``error``, or ``allow``.
            progress: Whether to show a bar; None does on a terminal.

        Returns:
            The same kind of frame, a row for each series and model: id, cutoff (if the frame has
            one), ``model``, ``length``, a column a loss (null where no element is left),
            ``<loss>_masked`` (elements without a finite quotient) and ``<loss>_gradient`` (a list
            in the order of time). Series come as their ids appear first.

        Raises:
            LossClientError: See `lossclient.exceptions`.

        Warns:
            LeftOutWarning: If columns were taken for no models; it names them, and what is scored.

        Example:
            >>> import pandas as pd
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
        rules = self._configuration.rules(options)
        columns = Columns(id_col, time_col, target_col, cutoff_col, models, exclude)
        reading = read_frame(df, columns, losses, duplicates)
        reading.models.warn(stacklevel=3)
        answer = self._answer(reading.forecasts, rules, show=progress)
        return cast("FrameT", write_frame(reading, answer))

    def score_series(  # noqa: PLR0913 - one argument a choice
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
            progress: See there.

        Returns:
            Arrays in the order of series. Numbers are computed in float32 if that holds both sides
            by their types, as it does half and integers of 8 and 16 bits, in double otherwise.
            Gradients are float32 for predictions of float32 or half, and where all is.

        Raises:
            LossClientError: See `lossclient.exceptions`; a series without elements is
                `InvalidInput`.
        """
        options = ScoreOptions(losses, gradients, missing, zero_division, block_denom_grad)
        rules = self._configuration.rules(options)
        forecasts, names = read_series(prediction, target, ids)
        answer = self._answer(forecasts, rules, show=progress)
        return scores_of(answer, names)

    def close(self) -> None:
        """Close all connections of this process; the client cannot be used any more."""
        http = self._http.close()
        if http is not None:
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, forecasts: Forecasts, rules: Rules, *, show: bool | None) -> pa.Table:
        """Return a row for each series and model, the models of a series together."""
        futures: dict[Future[Answers], Part] = {
            Future(): part
            for part in plan(forecasts, rules.options, self._configuration.request_bytes)
        }
        waiting, stop = deque(futures.items()), threading.Event()
        self._http.get()  # threads that ask first at the same time would make one each

        def work() -> None:
            with suppress(IndexError):  # nothing is left to do
                while not stop.is_set():
                    future, part = waiting.popleft()
                    self._settle(future, exchange(forecasts, part, rules), stop)

        # Of this call only: a small one must not wait behind a large one, and threads do not
        # survive a fork. Daemons: Ctrl-C must not wait for a server that does not answer.
        for n in range(min(self._configuration.concurrency, len(futures))):
            threading.Thread(target=work, name=f"lossclient-{n}", daemon=True).start()
        try:
            with progress_bar(forecasts, show) as bar:
                for done in _in_time(futures, rules):
                    done.result()
                    bar.update(futures[done].rows)
        finally:
            stop.set()
        return join(forecasts, {part: future.result() for future, part in futures.items()})

    def _settle(
        self,
        future: Future[Answers],
        steps: Generator[Step, Outcome, Answers],
        stop: threading.Event,
    ) -> None:
        try:
            future.set_result(self._drive(steps, stop))
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            future.set_exception(error)

    def _drive(self, steps: Generator[Step, Outcome, Answers], stop: threading.Event) -> Answers:
        """Do what the steps say, until they return."""
        outcome: Outcome = None
        while True:
            if stop.is_set():
                raise _StoppedError
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast("Answers", end.value)
            if isinstance(step, Pause):
                stop.wait(step.seconds)
                outcome = None
            else:
                outcome = self._post(step)

    def _post(self, post: Post) -> Reply | httpx.RequestError:
        connections = self._http.get()
        try:
            with connections.borrow(post.within_s) as http:
                response = http.send(self._configuration.request(http, post), stream=True)
                try:
                    # An answer that is not read closes its connection, which is one answer behind.
                    body = response.read() if post.is_answered_by(response.headers) else b""
                finally:
                    response.close()
        except httpx.RequestError as error:
            return error
        except RuntimeError:
            self._http.get()  # says so if another thread has closed it
            raise
        return Reply(response.status_code, response.headers, body)


def _in_time(futures: Collection[Future[Answers]], rules: Rules) -> Iterator[Future[Answers]]:
    """Yield what is done, until the deadline."""
    try:
        yield from as_completed(futures, timeout=rules.left_s())
    except TimeoutError:
        raise rules.late(f"the deadline has passed before {rules.server}{rules.via} answered")  # noqa: B904 - it has the cause that counts

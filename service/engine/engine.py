"""The engine: requests from the event loop, batches on the thread that owns the device.

The event loop admits requests and awaits futures. One thread owns the device: it takes a batch,
scores it, and hands all answers back in a single wake-up of the loop. The policy between them is
guarded by one lock, which is held for microseconds and never while the device works.

The thread begins the next batch, if one waits, before it finishes the one in flight. On a CPU a
batch is done once it has begun, and nothing is ever in flight.
"""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from loss_scoring.core import Scores
from loss_scoring.service.engine.compiling import Compiler
from loss_scoring.service.engine.policy import BatchPolicy, Span
from loss_scoring.service.engine.scorer import Answer, BatchObserver, Limits, Slice
from loss_scoring.service.engine.worker import Batch, DeviceLostError, DeviceWorker
from loss_scoring.service.errors import (
    DeadlineError,
    OverloadedError,
    ScoringError,
    ServiceError,
    is_exhausted,
    refusal_of,
)
from loss_scoring.service.limits.awake import TICK_S, AwakeClock
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.telemetry import TRACEPARENT

log = logging.getLogger(__name__)

_DEFAULTS = Limits()
_POLL_S, _ABANDONED_S = 0.01, 1


@dataclass(eq=False)
class Job:
    """A request on its way through the engine, until its answer is whole.

    Attributes:
        whole: All its series.
        future: Of the answer.
        on_device: Called with True before any of it gets to the device, and with False after.
        traceparent: Its span, if it is traced.
        unscored: How many series are not scored yet.
        parts: The scores of consecutive series so far.
        queue_s: Seconds from admission to the first batch.
        compute_s: Seconds in batches.
    """

    whole: Slice
    future: asyncio.Future[Answer]
    on_device: Callable[[bool], None] | None = None
    traceparent: str | None = None
    unscored: int = 0
    parts: list[Scores] = field(default_factory=list)
    queue_s: float = 0.0
    compute_s: float = 0.0

    def collect(
        self, span: Span, result: Scores | Exception, seconds: float
    ) -> Answer | Exception | None:
        """Add a result; return the answer once it is whole."""
        if isinstance(result, Exception):
            return _failure(result)
        if not self.parts:
            self.queue_s = span.waited
        self.compute_s += seconds
        self.parts.append(result)
        self.unscored -= span.stop - span.start
        if self.unscored:
            return None
        try:
            scores = Scores.cat(self.parts)
        except Exception as error:  # noqa: BLE001 - such as no memory for the whole
            return _failure(error)
        return Answer(scores, self.queue_s, self.compute_s)


_Flight = tuple[list[tuple[Span, Job]], Batch, float]
"""Spans with their jobs, their batch on the device, and when it began."""
_Settled = tuple[int, Job, Answer | Exception]


class Engine:
    """Scores requests in batches on one device worker.

    Args:
        worker: Owns the device.
        policy: Decides what is scored next.
        on_batch: Called with each batch; on the device's thread, or on the event loop for a request
            that is scored inline.
        limits: How large is small, and how long is too long.
        quota: The elements that may be queued or on the device; None where the callers have
            their own quotas.
    """

    def __init__(
        self,
        worker: DeviceWorker,
        policy: BatchPolicy,
        on_batch: BatchObserver = lambda _batch: None,
        limits: Limits = _DEFAULTS,
        quota: QueueQuota | None = None,
    ) -> None:
        self._worker = worker
        self._compiler = Compiler()
        self._compiling: dict[int, tuple[Job, Callable[[], None]]] = {}
        """Requests that wait for it, with what admits them."""
        self._loading: set[object] = set()
        """What is being loaded for ``score_inline``."""
        self._quota = quota
        self._policy = policy
        self._on_batch = on_batch
        self._limits = limits
        self.on_traced: Callable[[Sequence[str | None], int, float], None] | None = None
        """Called after ``on_batch`` with the trace of each request, elements and seconds."""
        self._busy_since = math.inf
        self._awake = AwakeClock()
        self._ticking: asyncio.Task[None] | None = None
        self._exhausted = 0
        self._in_flight: deque[_Flight] = deque()
        self._work = threading.Condition()  # on a lock that its holder may take again
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count()
        self._running = False
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def ready(self) -> bool:
        """Whether a batch was scored on the device and requests are admitted."""
        return self._running and not self.hung

    @property
    def hung(self) -> bool:
        """Whether a batch has been on the device for longer than any may."""
        return self._awake.now() - self._busy_since > self._limits.hung_s

    @property
    def lost(self) -> bool:
        """Whether only a new process can help: the device hangs, or its thread has ended."""
        return self.hung or self._lost

    @property
    def queued_elements(self) -> int:
        return self._policy.queued_elements

    async def start(self) -> None:
        """Warm the device up and begin to take requests."""
        if self._thread.ident is not None:
            raise RuntimeError("an engine starts once")
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._worker.warm_up)
        self._running = True
        self._thread.start()
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            self._awake.tick()
            await asyncio.sleep(TICK_S)

    async def stop(self) -> None:
        """Refuse new requests, finish the admitted ones and end the thread.

        The thread is abandoned when the device hangs, or takes long over cancelled requests: to
        join it would be to hang with it, and the event loop that closes would hang as well.
        """
        with self._work:
            self._running = False
            self._work.notify()
        needed = time.monotonic()
        while self._thread.is_alive() and not self.hung:
            now = time.monotonic()
            needed = now if self._jobs else needed
            if now - needed > _ABANDONED_S:
                break
            await asyncio.sleep(_POLL_S)
        if self._ticking is not None:
            self._ticking.cancel()

    def score_inline(self, whole: Slice, *, idle: bool = False) -> Answer | None:
        """Score a small request on the calling thread, alone; None if it is one to ``submit``.

        Larger ones count as small if ``idle``: no other request is in progress.

        Raises:
            OverloadedError: If the engine is not running.
            ScoringError: If the device failed on it.
        """
        elements = whole.prediction.elements
        limits = self._limits
        if not 0 < elements <= (limits.idle_inline_elements if idle else limits.inline_elements):
            return None
        if not self._worker.is_compiled(whole):
            return None
        started = time.monotonic()
        self._check_ready()
        try:
            result = self._worker.score(whole)
        except DeviceLostError as error:
            self._lost, self._running = True, False
            raise _failure(error) from error
        seconds = time.monotonic() - started
        self._on_batch((1, elements, seconds))
        if isinstance(result, Exception):
            raise _failure(result)
        return Answer(result, 0.0, seconds)

    def load_for(self, whole: Slice) -> None:
        """Load in the background what ``score_inline`` lacks for such a request, if it is cached.

        Called when another process has scored it, and compiled that first.
        """
        kind, limits = whole.agreement, self._limits
        most = max(limits.inline_elements, limits.idle_inline_elements)
        if whole.prediction.elements > most or kind in self._loading:
            return
        if self._worker.is_compiled(whole):
            return
        work = self._worker.compilation_for(whole, only_cached=True)
        self._loading.add(kind)
        try:
            self._compiler.compile(work, lambda _failed: self._loading.discard(kind))
        except RuntimeError:  # there are too many threads; the next such request tries again
            self._loading.discard(kind)

    def _check_ready(self) -> None:
        if not self._running:
            raise OverloadedError("the service is starting or stopping", 5, reason="not-ready")
        if self._busy_since < math.inf and self.hung:
            raise OverloadedError("the device does not answer", 30, reason="device-lost")

    def submit(  # noqa: PLR0913 - the last three are those of ``processes.host``
        self,
        whole: Slice,
        *,
        client: str = "",
        deadline: float = math.inf,
        alone: bool = False,
        on_device: Callable[[bool], None] | None = None,
        traceparent: str | None = None,
    ) -> asyncio.Future[Answer]:
        """Queue a request and return the future of its answer.

        Cancelling the future withdraws what has not yet been scored. After ``deadline``, on
        ``time.monotonic``, nothing more of it is scored, and the future fails with
        ``DeadlineError``, at the latest when the device is free. ``alone``, it shares the device
        with no other. ``on_device`` is called on the device's thread: with True before any of it
        gets there, and with False after. Its share of the queue is that of ``client``, its span
        ``traceparent`` or that of the request being served.

        Raises:
            OverShareError: If the client's other requests fill most of the queue.
            OverloadedError: If the queue is full, the engine is not running or the device hangs.
        """
        now = time.monotonic()
        self._check_ready()
        assert self._loop is not None  # noqa: S101 - it runs
        future: asyncio.Future[Answer] = self._loop.create_future()
        prediction = whole.prediction
        if len(prediction) == 0:
            future.set_result(whole.empty_answer())
            return future
        traceparent = traceparent or TRACEPARENT.get()
        job = Job(whole, future, on_device, traceparent, unscored=len(prediction))
        number = next(self._numbers)
        # The policy bisects it: no copy, and a tensor's index costs a hundred times more.
        offsets = memoryview(prediction.offsets)  # type: ignore[arg-type]
        admit = partial(
            self._policy.admit, number, offsets, now=now, deadline=deadline, alone=alone
        )
        elements = prediction.elements  # and not the job, whose body would be kept as long
        is_compiled = self._worker.is_compiled(whole)
        with self._work:
            self._check_ready()  # the thread may have ended since
            if self._quota is not None:
                self._quota.take(client, elements)
            if is_compiled:
                self._admit(number, job, admit)
            else:
                self._admit_compiled(number, job, admit)

        def finish(done: asyncio.Future[Answer]) -> None:
            if self._quota is not None:
                self._quota.release(client, elements)
            if done.cancelled():
                self._withdraw(number)

        future.add_done_callback(finish)
        return future

    def _admit(self, number: int, job: Job, admit: Callable[[], None]) -> None:
        admit()
        self._jobs[number] = job
        self._work.notify()

    def _admit_compiled(self, number: int, job: Job, admit: Callable[[], None]) -> None:
        """Admit a request once what it needs was compiled, which takes seconds."""
        loop = self._loop
        assert loop is not None  # noqa: S101 - it runs
        self._compiling[number] = job, admit
        work = self._worker.compilation_for(job.whole)

        def resume(failed: Exception | None) -> None:
            waiting = self._compiling.pop(number, None)
            if waiting is None:  # it was cancelled
                return
            job, admit = waiting
            if failed is not None:
                job.future.set_exception(_failure(failed))
                return
            try:
                with self._work:
                    self._check_ready()
                    self._admit(number, job, admit)
            except Exception as error:  # noqa: BLE001 - the request fails of it
                job.future.set_exception(error)

        def done(failed: Exception | None) -> None:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(resume, failed)

        try:
            self._compiler.compile(work, done)
        except RuntimeError as error:  # there are too many threads
            loop.call_soon(resume, error)

    def _withdraw(self, number: int) -> None:
        self._compiling.pop(number, None)
        with self._work:
            self._policy.withdraw(number)
            self._jobs.pop(number, None)

    def _run(self) -> None:
        failed: Exception | None = None
        try:
            while True:
                try:
                    if failed is not None:
                        self._fail_all(failed)
                    self._serve()
                except Exception as error:
                    if not is_exhausted(error):
                        raise
                    log.exception("there is no memory; all requests fail, and others are taken")
                    failed = error.with_traceback(None)  # its frames would keep the tensors alive
                    time.sleep(_POLL_S)
                else:
                    return
        except BaseException:
            log.critical("the device worker died; the service is no longer ready", exc_info=True)
            with self._work:
                self._lost, self._running = True, False
                orphans = list(self._jobs.items())
            self._settle([(n, job, ScoringError("the device worker died")) for n, job in orphans])

    def _fail_all(self, error: Exception) -> None:
        """Fail what was admitted: some of it was taken from the queue, and is in no batch."""
        while self._in_flight:
            scored, batch, _ = self._in_flight.popleft()
            with suppress(Exception):
                batch.finish()  # the device may still use its memory
            for _, job in scored:
                if job.on_device is not None:
                    job.on_device(False)  # noqa: FBT003 - the one thing it says
        self._busy_since = math.inf
        with self._work:
            jobs = list(self._jobs.items())
        self._settle([(number, job, _failure(error)) for number, job in jobs])

    def _serve(self) -> None:
        in_flight = self._in_flight
        while (spans := self._next_batch(in_flight)) or in_flight:
            if not in_flight:
                self._busy_since = self._awake.now()
            in_flight.extend(self._begin(spans))
            while in_flight and (len(in_flight) > 1 or not spans or in_flight[0][1].done):
                settled = self._finish(in_flight.popleft())
                # The next batch in flight has had the device since now.
                self._busy_since = self._awake.now() if in_flight else math.inf
                self._settle(settled)
                del settled  # bodies and gradients, else kept until the next batch ends
            if not in_flight:
                self._busy_since = math.inf

    def _begin(self, spans: Sequence[Span]) -> list[_Flight]:
        """Begin a batch, unless all its requests were withdrawn since it was taken."""
        started = time.monotonic()
        live = [(span, job) for span in spans if (job := self._jobs.get(span.request))]
        if not live:
            return []
        for _, job in live:
            if job.on_device is not None:
                job.on_device(True)  # noqa: FBT003 - the one thing it says
        batch = self._worker.begin([job.whole.cut(span.start, span.stop) for span, job in live])
        return [(live, batch, started)]

    def _finish(self, flight: _Flight) -> list[_Settled]:
        """Finish a batch; return the requests that it completed or failed."""
        scored, batch, started = flight
        results = batch.finish()
        for _, job in scored:
            if job.on_device is not None:
                job.on_device(False)  # noqa: FBT003 - likewise
        seconds = time.monotonic() - started
        elements = sum(span.elements for span, _ in scored)
        with self._work:
            if self._worker.exhausted > self._exhausted:  # when it began or since
                self._policy.shrink()
            else:
                self._policy.recover()
            self._exhausted = self._worker.exhausted
        self._on_batch((len(scored), elements, seconds))
        if self.on_traced is not None:
            self.on_traced([job.traceparent for _, job in scored], elements, seconds)
        collected = [
            (span.request, job, job.collect(span, result, seconds))
            for (span, job), result in zip(scored, results, strict=True)
        ]
        return [(n, job, answer) for n, job, answer in collected if answer is not None]

    def _settle(self, settled: Sequence[_Settled]) -> None:
        """Hand answers to the event loop, then remove the requests: in this order none is lost."""
        if settled and self._loop is not None:
            answers = [(job.future, answer) for _, job, answer in settled]
            self._loop.call_soon_threadsafe(_deliver, answers)
        for number, *_ in settled:
            self._withdraw(number)

    def _next_batch(self, in_flight: Sequence[_Flight]) -> list[Span]:
        """Take what is queued; if nothing is in flight wait for it: empty then means stopped."""
        if in_flight and in_flight[-1][0][0][0].alone:
            return []
        with self._work:
            while True:
                now = time.monotonic()
                self._settle(self._expired(now))
                batch = self._policy.next_batch(now=now, idle=not in_flight)
                if batch or in_flight or not self._running:
                    return batch
                self._work.wait()

    def _expired(self, now: float) -> list[_Settled]:
        """Take requests off the queue whose deadline has passed."""
        late = ((number, self._jobs.get(number)) for number in self._policy.expire(now=now))
        detail = "the request still waited for the device"
        return [(number, job, DeadlineError(detail)) for number, job in late if job]


def _failure(error: Exception) -> ServiceError:
    return refusal_of(error) or ScoringError(
        f"the device could not score it: {type(error).__name__}"
    )


def _deliver(answers: Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]) -> None:
    """Resolve futures, on the event loop, but for those that were cancelled."""
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

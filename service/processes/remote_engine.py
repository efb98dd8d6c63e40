"""The front end's side: an engine that lets another process score.

A request is kept until it is answered or nobody waits for it, so that it can be sent again to the
next worker when one dies. Its memory is kept until the worker has let go of it, too: what is given
back early would be written to while it belongs to somebody else.
"""

import asyncio
import itertools
import logging
import math
import socket
from typing import Any

import numpy as np

from loss_scoring.core import Ragged, ScoreOptions, Scores
from loss_scoring.service.engine.engine import BatchObserver
from loss_scoring.service.engine.scorer import Answer, Scorer
from loss_scoring.service.errors import OverloadedError, ScoringError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.channel import MOST_DESCRIPTORS
from loss_scoring.service.processes.link import TOGETHER, Link
from loss_scoring.service.processes.memory import SharedMemory
from loss_scoring.service.processes.placing import Placing
from loss_scoring.service.processes.remote_job import RemoteJob, error_of
from loss_scoring.service.processes.suspects import Ending
from loss_scoring.service.processes.wire import Box, Layout, Row

log = logging.getLogger(__name__)

_COPIED_AT_ONCE = 1 << 22


class RemoteEngine:
    """Has the interface of ``Engine``; see there.

    Args:
        memory: Shared with the worker; bodies that lie in it are not copied.
        quota: The elements that may be unanswered, or not yet released by the worker.
        on_batch: Called with batches of the worker, each reported to one front end.
        inline: Scores small requests in this process. None sends all to the worker.
    """

    def __init__(
        self,
        memory: SharedMemory,
        quota: QueueQuota,
        on_batch: BatchObserver = lambda _slices, _elements, _seconds: None,
        inline: Scorer | None = None,
    ) -> None:
        self._memory = memory
        self._placing = Placing(memory)
        self._cells = memory.allocate(8 * Box.CELLS)
        self._box = Box(self._cells.view(np.uint64))
        self._quota = quota
        self._on_batch = on_batch
        self._inline = inline
        self._numbers = itertools.count(1)
        self._jobs: dict[int, RemoteJob] = {}
        self._unsent: list[int] = []
        self._withdrawn: list[int] = []
        self._flushing = False
        self._link: Link | None = None
        self._connected = False
        self._running = False
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether there is a worker, which then has scored a batch."""
        return self._running and self._connected

    @property
    def connected(self) -> bool:
        """Whether there is a worker."""
        return self._connected

    @property
    def lost(self) -> bool:
        """Always False: the supervisor sees to the worker."""
        return False

    @property
    def queued_elements(self) -> int:
        """How many elements are unanswered, or not yet let go of by the worker."""
        return self._quota.held

    async def start(self) -> None:
        """Begin to take requests; they wait for a worker."""
        if self._inline is not None:
            await self._inline.start()
        self._running = True

    async def stop(self) -> None:
        """Refuse new requests, finish the admitted ones and let go of the worker."""
        self._running = False
        if self._inline is not None:
            await self._inline.stop()
        while not all(job.future.done() for job in self._jobs.values()):
            self._changed.clear()
            await self._changed.wait()
        if self._link is not None:
            self._link.close()
            self._link, self._connected = None, False

    def score_inline(
        self, prediction: Ragged, target: Ragged, options: ScoreOptions, *, idle: bool = False
    ) -> Answer | None:
        """Score a small request in this process; None if it is one to ``submit``."""
        if self._inline is None:
            return None
        return self._inline.score_inline(prediction, target, options, idle=idle)

    def submit(
        self,
        prediction: Ragged,
        target: Ragged,
        options: ScoreOptions,
        *,
        client: str = "",
        deadline: float = math.inf,
    ) -> asyncio.Future[Answer]:
        """Queue a request and return the future of its answer; see ``Engine.submit``."""
        if not self._running:
            raise OverloadedError("the service is starting or stopping", 5, reason="not-ready")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        series, elements = len(prediction), prediction.elements
        if series == 0:
            future.set_result(Answer(Scores.empty(options, prediction.dtype)))
            return future
        self._quota.take(client, elements)
        layout = Layout(options, prediction.dtype, series, elements)
        number = next(self._numbers)
        job = RemoteJob(number, client, prediction, target, options, deadline, future, layout)
        self._jobs[job.number] = job
        future.add_done_callback(lambda done: self._withdraw(job) if done.cancelled() else None)
        if 2 * elements * prediction.dtype.itemsize <= _COPIED_AT_ONCE:
            try:
                self._placing.place(job)
            except BaseException:
                self._forget(job)
                raise
            self._send_soon(job)
        else:
            placed = loop.run_in_executor(None, self._placing.place, job)
            placed.add_done_callback(lambda done: self._placed(job, done.exception()))
        return future

    def _placed(self, job: RemoteJob, error: BaseException | None) -> None:
        if error is not None:
            log.error("a request could not be laid into shared memory", exc_info=error)
        self._send_soon(job)  # it has no places then, and fails of that

    def _send_soon(self, job: RemoteJob) -> None:
        if job.sent:  # as soon as it was placed, by a new worker's coming
            return
        if job.future.done():
            self._forget(job)
            return
        if job.places is None:
            self._forget(job)
            job.future.set_exception(
                OverloadedError("there is no memory to share", reason="memory-full")
            )
            return
        self._unsent.append(job.number)
        self._flush_soon()

    def _withdraw(self, job: RemoteJob) -> None:
        self._changed.set()
        if job.sent:
            self._withdrawn.append(job.number)
            self._flush_soon()
        elif job.places is not None:  # else it is being copied, and comes by again
            self._forget(job)

    def _forget(self, job: RemoteJob) -> None:
        if self._jobs.pop(job.number, None) is not None:
            self._quota.release(job.client, job.elements)
            self._changed.set()

    def _let_go(self, number: int) -> RemoteJob | None:
        """Forget a request that the worker is done with; return it if somebody waits for it."""
        job = self._jobs.get(number)
        if job is None:
            return None
        self._forget(job)
        return None if job.future.done() else job

    def connect(self, end: socket.socket, ending: Ending) -> None:
        """Go on with a new worker, which is ready.

        Args:
            end: Leads to it.
            ending: How the worker before it ended.
        """
        if self._link is not None:
            self._link.read()  # its last words
            self._link.close()
        self._judge(ending)
        self._box.clear()
        self._withdrawn.clear()
        self._unsent = [n for n, job in self._jobs.items() if job.places is not None]
        self._link = link = Link(self._memory, end, self._hear, self._disconnected)
        self._connected = True
        link.open()
        box = self._memory.find(self._cells.ctypes.data, self._cells.nbytes)
        if box is not None:
            link.tell({"box": box}, link.unknown([box]))
        self._flush()

    def tell_dropped(self) -> None:
        """Let the worker forget memory that has gone, though there is nothing else to tell."""
        if self._link is not None and self._connected and self._memory.dropped:
            self._link.tell({}, set())

    def _disconnected(self) -> None:
        self._connected = False

    def _judge(self, ending: Ending) -> None:
        for job in [job for job in self._jobs.values() if job.sent]:
            job.sent = False
            if job.future.done():
                self._forget(job)
            elif self._box.holds(job.number) and job.suspicion.convicts(ending):
                self._forget(job)
                job.future.set_exception(
                    ScoringError("the device worker died each time it scored this request alone")
                )

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Tell the worker all there is to tell, in as few messages as may be."""
        self._flushing = False
        link = self._link
        if link is None or not self._connected:
            return
        while self._unsent or self._withdrawn:
            rows: list[Row] = []
            segments: set[int] = set()
            while self._unsent and len(rows) < TOGETHER and len(segments) < MOST_DESCRIPTORS - 4:
                job = self._jobs.get(self._unsent.pop(0))
                if job is None or job.places is None or job.sent or job.future.done():
                    continue
                job.sent = True
                rows.append(job.row())
                segments |= link.unknown(job.places)
            message: dict[str, Any] = {"submit": rows, "withdraw": self._withdrawn[:TOGETHER]}
            del self._withdrawn[:TOGETHER]
            link.tell(message, segments)

    def _hear(self, message: dict[str, Any], _descriptors: list[int]) -> None:
        for number, queue_s, compute_s in message.get("done", ()):
            if job := self._let_go(number):
                job.future.set_result(job.answer(queue_s, compute_s))
        for number, kind, detail, retry_after_s in message.get("failed", ()):
            if job := self._let_go(number):
                job.future.set_exception(error_of(kind, detail, retry_after_s))
        for number in message.get("gone", ()):
            self._let_go(number)
        for slices, elements, seconds in message.get("batches", ()):
            self._on_batch(slices, elements, seconds)

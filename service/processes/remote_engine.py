"""The front end's side: an engine that lets another process score.

A request is kept until it is answered or cancelled, so that it can be sent again to the next
worker when one dies. A cancelled request's memory is released only when the worker acknowledges,
because it may still be writing to it.
"""

import asyncio
import itertools
import logging
import math
import socket
from typing import Any

import numpy as np

from loss_scoring.core.buffers import BufferPool
from loss_scoring.service.engine import Engine
from loss_scoring.service.engine.scorer import Answer, BatchObserver, Slice
from loss_scoring.service.errors import OverloadedError, ScoringError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.endings import Ending
from loss_scoring.service.processes.memory import Arena
from loss_scoring.service.processes.remote_job import RemoteJob, error_of
from loss_scoring.service.processes.wire import AnswerLayout, InFlightTable

log = logging.getLogger(__name__)

_COPIED_INLINE = 1 << 22
_RETAINED = 256 << 20
_RETRY_S = 0.5
_MESSAGE_ENTRIES = 128
"""Most entries of a kind in a message."""


class RemoteEngine:
    """Has the interface of ``Engine``; see there.

    Args:
        arena: Shared with the worker; bodies that lie in it are not copied.
        quota: The elements that may be unanswered, or not yet released by the worker.
        worker: The address where workers accept connections. While there is none, a connection
            waits for the next one.
        on_batch: Called with batches of the worker, each reported to one front end.
        inline: Scores small requests in this process. None sends all to the worker.
    """

    def __init__(
        self,
        arena: Arena,
        quota: QueueQuota,
        worker: str,
        on_batch: BatchObserver = lambda _batch: None,
        inline: Engine | None = None,
    ) -> None:
        self._arena = arena
        self._pool = BufferPool(_RETAINED, arena.allocate)
        self._cells = arena.allocate(8 * InFlightTable.CELLS)
        self._table = InFlightTable(self._cells.view(np.uint64))
        self._quota = quota
        self._address = worker
        self._on_batch = on_batch
        self._inline = inline
        self._numbers = itertools.count(1)
        self._jobs: dict[int, RemoteJob] = {}
        self._unsent: list[int] = []
        self._withdrawn: list[int] = []
        self._flushing = False
        self._channel: Channel | None = None
        self._worker = 0
        """The one that is connected, or was last."""
        self._connected = False
        self._running = False
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether there is a worker, which then has scored a batch."""
        return self._running and self._connected

    @property
    def lost(self) -> bool:
        """Whether the device of this process is: the supervisor replaces the worker's."""
        return self._inline is not None and self._inline.lost

    @property
    def queued_elements(self) -> int:
        """How many elements are unanswered, or not yet released by the worker."""
        return self._quota.held

    async def start(self) -> None:
        """Begin to take requests, which wait for a worker."""
        if self._inline is not None:
            await self._inline.start()
        self._running = True
        self._connect()

    async def stop(self) -> None:
        """Refuse new requests, finish the admitted ones and disconnect from the worker."""
        self._running = False
        if self._inline is not None:
            await self._inline.stop()
        while not all(job.future.done() for job in self._jobs.values()):
            self._changed.clear()
            await self._changed.wait()
        self._address = ""
        if self._channel is not None:
            self._channel.close()
        self._connected = False

    def score_inline(self, whole: Slice, *, idle: bool = False) -> Answer | None:
        """Score a small request in this process; None if it is one to ``submit``."""
        if self._inline is None:
            return None
        return self._inline.score_inline(whole, idle=idle)

    def submit(
        self, whole: Slice, *, client: str = "", deadline: float = math.inf
    ) -> asyncio.Future[Answer]:
        """Queue a request and return the future of its answer; see ``Engine.submit``."""
        if not self._running:
            raise OverloadedError("the service is starting or stopping", 5, reason="not-ready")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        prediction, weighted = whole.prediction, whole.weights is not None
        series, elements, itemsize = len(prediction), prediction.elements, prediction.itemsize
        if series == 0:
            future.set_result(whole.empty_answer())
            return future
        self._quota.take(client, elements)
        layout = AnswerLayout(whole.options, itemsize, series, elements, weighted=weighted)
        job = RemoteJob(next(self._numbers), client, whole, deadline, future, layout)
        self._jobs[job.number] = job
        future.add_done_callback(lambda done: self._withdraw(job) if done.cancelled() else None)
        try:
            if elements * (2 * itemsize + 8 * weighted) <= _COPIED_INLINE:
                job.place(self._arena, self._pool)
                self._send_soon(job)
            else:
                placed = loop.run_in_executor(None, job.place, self._arena, self._pool)
                placed.add_done_callback(lambda done: self._placed(job, done.exception()))
        except BaseException:  # such as no memory to share, or no thread
            self._remove(job)
            raise
        return future

    def _placed(self, job: RemoteJob, error: BaseException | None) -> None:
        if error is not None:
            log.error("a request could not be copied to shared memory", exc_info=error)
        self._send_soon(job)  # it has no places then, and fails of that

    def _send_soon(self, job: RemoteJob) -> None:
        if job.sent:  # since it was placed, to a worker that had just connected
            return
        if job.future.done():
            self._remove(job)
            return
        if job.places is None:
            self._remove(job)
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
        elif job.places is not None:  # else it is being copied, and removed after that
            self._remove(job)

    def _remove(self, job: RemoteJob) -> None:
        if self._jobs.pop(job.number, None) is not None:
            self._quota.release(job.client, job.elements)
            self._changed.set()

    def _released(self, number: int) -> RemoteJob | None:
        """Remove a request that the worker is done with; return it if it is not cancelled."""
        job = self._jobs.get(number)
        if job is None:
            return None
        self._remove(job)
        return None if job.future.done() else job

    def _connect(self) -> None:
        """Connect to the worker, or to the one that comes next."""
        if not self._address:  # stopped
            return
        end = None
        try:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            end.settimeout(0)
            end.connect(self._address)
        except OSError as error:  # no descriptor is free: connections may have taken all
            if end is not None:
                end.close()
            log.warning("the connection to the worker has to wait: %s", error)
            asyncio.get_running_loop().call_later(_RETRY_S, self._connect)
            return
        self._channel = Channel(end, self._receive, self._disconnected)
        self._channel.open()

    def _disconnected(self) -> None:
        assert self._channel is not None  # noqa: S101 - it says so
        self._connected = False
        self._channel.close()
        self._connect()

    def _greeted(self, channel: Channel, worker: int, ending: Ending) -> None:
        """Judge requests by the end of the worker before, and send the others to this one."""
        self._judge(ending if worker != self._worker else Ending.NONE)
        self._worker, self._connected = worker, True
        self._table.clear()
        self._withdrawn.clear()
        self._unsent = [n for n, job in self._jobs.items() if job.places is not None]
        table = self._arena.offset(self._cells.ctypes.data, self._cells.nbytes)
        channel.send({"table": table}, [self._arena.descriptor])
        self._flush()

    def _judge(self, ending: Ending) -> None:
        for job in [job for job in self._jobs.values() if job.sent]:
            job.sent = False
            if job.future.done():
                self._remove(job)
            elif job.number in self._table and job.suspicion.convicts(ending):
                self._remove(job)
                job.future.set_exception(
                    ScoringError("the device worker died each time it scored this request alone")
                )

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send all that is unsent, in as few messages as possible."""
        self._flushing = False
        if self._channel is None or not self._connected:
            return
        while self._unsent or self._withdrawn:
            rows = []
            for number in self._unsent[:_MESSAGE_ENTRIES]:
                job = self._jobs.get(number)
                if job and job.places is not None and not job.sent and not job.future.done():
                    job.sent = True
                    rows.append(job.row())
            self._channel.send({"submit": rows, "withdraw": self._withdrawn[:_MESSAGE_ENTRIES]})
            del self._unsent[:_MESSAGE_ENTRIES], self._withdrawn[:_MESSAGE_ENTRIES]

    def _receive(self, message: dict[str, Any], _descriptors: list[int]) -> None:
        if "worker" in message and self._channel is not None:
            worker, ending = message["worker"]
            self._greeted(self._channel, worker, Ending(ending))
        scored: list[Slice] = []
        for number, queue_s, compute_s in message.get("done", ()):
            if job := self._released(number):
                job.future.set_result(job.answer(queue_s, compute_s))
                scored.append(job.whole)
        for number, kind, detail, retry_after_s in message.get("failed", ()):
            if job := self._released(number):
                job.future.set_exception(error_of(kind, detail, retry_after_s))
        for number in message.get("gone", ()):
            self._released(number)
        for batch in message.get("batches", ()):
            self._on_batch(batch)
        if self._inline is not None:  # once all are answered, whatever this comes to
            for whole in scored:
                self._inline.load_for(whole)

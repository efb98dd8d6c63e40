"""The device worker's side: requests of all front ends go to one engine.

Numbers are read where the front ends put them and answers are written where they want them.
Messages are checked, and offsets are copied before they are: whatever a front end does afterwards
to the memory that it shares, no kernel reads outside it.
"""

import asyncio
import logging
import math
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import Ragged
from loss_scoring.service.engine.engine import Engine
from loss_scoring.service.engine.policy import BatchPolicy
from loss_scoring.service.engine.scorer import Answer, Limits, Slice
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import OverloadedError, ScoringError, ServiceError, refusal_of
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.endings import Ending
from loss_scoring.service.processes.memory import ForeignArena
from loss_scoring.service.processes.wire import (
    AnswerLayout,
    InFlightTable,
    Row,
    unpack_options,
)

log = logging.getLogger(__name__)

_FLOATS = {4: np.float32, 8: np.float64}

_INLINE_COPY_BYTES = 1 << 20
_MESSAGE_ENTRIES = 128
"""Most entries of a kind in a message."""


class Host:
    """Serves front ends with an engine of its own.

    Args:
        worker: Owns the device.
        batch_elements: The budget of a batch.
        on_lost: Called when the engine is lost, to end the process. Its last answers, which are
            errors, are not sent: the front ends ask the next worker.
        hung_s: A batch that takes longer means that the device hangs.
        on_unfit: Called when a message cannot be handled, to end the process, through no fault of
            what is on the device; else ``on_lost`` is.
        before: How the worker before this one ended.
        name: Which no other worker has.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a process is started with
        self,
        worker: DeviceWorker,
        batch_elements: int,
        on_lost: Callable[[], None],
        hung_s: float = math.inf,
        on_unfit: Callable[[], None] | None = None,
        before: Ending = Ending.NONE,
        name: int | None = None,
    ) -> None:
        # The front ends have admitted what they send, and never send what is not admitted.
        policy = BatchPolicy(batch_elements=batch_elements)
        self.batches: deque[tuple[int, int, float]] = deque(maxlen=1 << 16)
        """Each is reported to one of the front ends, for its metrics."""
        self.engine = Engine(worker, policy, self.batches.append, Limits(hung_s=hung_s))
        self.on_lost = on_lost
        self.on_unfit = on_unfit or on_lost
        self.greeting = {"worker": [name or os.getpid(), before.value]}
        self._peers: list[_Peer] = []

    def connect(self, end: socket.socket) -> None:
        """Serve a front end, until it disconnects."""
        self._peers.append(_Peer(self, end, self._peers.remove))

    def close(self) -> None:
        """End all connections."""
        for peer in list(self._peers):
            peer.end()


class _Peer:
    def __init__(self, host: Host, end: socket.socket, on_end: Callable[["_Peer"], None]) -> None:
        self._host = host
        self._on_end = on_end
        self._channel = Channel(end, self._receive, self.end)
        self._futures: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: dict[str, list[Any]] = {"done": [], "failed": [], "gone": []}
        self._flushing = False
        self._loop = asyncio.get_running_loop()
        self._channel.open()
        self._channel.send(host.greeting)

    def end(self) -> None:
        """Disconnect from a front end and cancel its requests."""
        self._channel.close()
        for future in list(self._futures.values()):
            future.cancel()
        self._futures.clear()
        self._on_end(self)

    def _receive(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._handle(message, descriptors)
        except Exception:  # such as no more descriptors or mappings; a fresh worker has them
            log.exception("a message of a front end cannot be handled")
            self._host.on_unfit()

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "table" in message:
            (descriptor,) = descriptors
            self._arena = ForeignArena(descriptor)
            cells = self._arena.view(message["table"], InFlightTable.CELLS, np.uint64)
            self._table = InFlightTable(cells)
        for parts in message.get("submit", ()):
            self._submit(parts)
        for number in message.get("withdraw", ()):
            future = self._futures.get(number)
            if future is None or future.cancel():
                # Else the answer is on its way, and releases the memory.
                self._futures.pop(number, None)
                self._notify("gone", number)

    def _submit(self, parts: list[Any]) -> None:
        number = parts[0]
        try:
            row = Row(*parts)
            options = unpack_options(row.options)
            kind = _FLOATS[row.itemsize]
            view = self._arena.view
            offsets = view(row.offsets, row.series + 1, np.int64).copy()
            prediction, target = (view(x, row.elements, kind) for x in row.sides)
            weights, scales = (
                None if start is None else view(start, length, np.float64)
                for start, length in zip(row.doubles, (row.elements, row.series), strict=True)
            )
            shape = row.series, row.elements
            layout = AnswerLayout(options, row.itemsize, *shape, weighted=weights is not None)
            block = view(row.answer, layout.size, np.uint8)
            ragged = Ragged(prediction, offsets)
            future = self._host.engine.submit(
                Slice(ragged, ragged.like(target), options, weights, scales),
                deadline=math.inf if row.deadline is None else row.deadline,
                alone=row.alone,
                on_device=self._table.marker(number),
                traceparent=row.traceparent,
            )
        except ServiceError as error:
            if self._host.engine.lost:  # the next worker can do it
                self._host.on_lost()
            self._fail(number, error)
        except Exception as error:
            log.exception("a front end sent an invalid request")
            self._fail(number, ScoringError(f"the device worker refused it: {error}"))
        else:
            self._futures[number] = future
            future.add_done_callback(lambda done: self._settle(number, done, layout, block))

    def _settle(
        self,
        number: int,
        done: asyncio.Future[Answer],
        layout: AnswerLayout,
        block: NDArray[np.uint8],
    ) -> None:
        if done.cancelled():
            return
        if self._host.engine.lost:
            self._host.on_lost()
            return
        error = done.exception()
        if error is not None:
            self._futures.pop(number, None)
            self._fail(number, error)
            return
        answer = done.result()
        try:
            if layout.size > _INLINE_COPY_BYTES:
                copied = self._loop.run_in_executor(None, layout.write, block, answer.scores)
                copied.add_done_callback(
                    lambda copied: self._done(number, answer, copied.exception())
                )
                return
            layout.write(block, answer.scores)
        except Exception as failed:  # noqa: BLE001 - whatever it is, the front end must know
            self._done(number, answer, failed)
        else:
            self._done(number, answer, None)

    def _done(self, number: int, answer: Answer, error: BaseException | None) -> None:
        self._futures.pop(number, None)
        if error is None:
            self._notify("done", [number, answer.queue_s, answer.compute_s])
        else:
            unwritten = ScoringError(f"the answer could not be written: {error}")
            self._fail(number, refusal_of(error) or unwritten)

    def _fail(self, number: int, error: BaseException) -> None:
        after = error.retry_after_s if isinstance(error, OverloadedError) else None
        self._notify("failed", [number, type(error).__name__, str(error), after])

    def _notify(self, kind: str, entry: Any) -> None:
        """Send an entry together with those of the same turn of the event loop."""
        self._unsent[kind].append(entry)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        batches = self._host.batches
        while any(self._unsent.values()):
            message = {
                kind: entries[:_MESSAGE_ENTRIES]
                for kind, entries in self._unsent.items()
                if entries
            }
            for entries in self._unsent.values():
                del entries[:_MESSAGE_ENTRIES]
            reported = [batches.popleft() for _ in range(min(len(batches), _MESSAGE_ENTRIES))]
            self._channel.send({**message, "batches": reported})

"""The device worker's side: requests of all front ends go to one engine.

Numbers are read where the front ends put them and answers are written where they want them. What
is told is checked, and offsets are copied before they are: whatever a front end does afterwards to
the memory that it shares, no kernel reads outside it.
"""

import asyncio
import logging
import math
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import Ragged
from loss_scoring.service.engine.engine import Engine
from loss_scoring.service.engine.policy import BatchPolicy
from loss_scoring.service.engine.scorer import Answer, Limits
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import OverloadedError, ScoringError, ServiceError
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.memory import Mappings, Place
from loss_scoring.service.processes.wire import DTYPES, Box, Layout, Row, unpack_options

log = logging.getLogger(__name__)

_COPIED_AT_ONCE = 1 << 20
_TOGETHER = 128
"""Answers in one message."""


class Host:
    """Serves front ends with an engine of its own.

    Args:
        worker: Owns the device.
        batch_elements: The budget of a batch.
        hung_s: A batch that takes longer means that the device hangs.
        on_lost: Called when the engine is lost, to end the process. Its last answers, which are
            errors, are not given: the front ends ask the next worker.
        on_unfit: Called when a message cannot be followed, to end the process, through no fault of
            who is on the device; else ``on_lost`` is.
    """

    def __init__(
        self,
        worker: DeviceWorker,
        batch_elements: int,
        on_lost: Callable[[], None],
        hung_s: float = math.inf,
        on_unfit: Callable[[], None] | None = None,
    ) -> None:
        # The front ends have admitted what they send, and never send what is not admitted.
        policy = BatchPolicy(batch_elements=batch_elements)
        self.engine = Engine(worker, policy, self._observe_batch, Limits(hung_s=hung_s))
        self.on_lost = on_lost
        self.on_unfit = on_unfit or on_lost
        self.batches: deque[tuple[int, int, float]] = deque(maxlen=1 << 16)
        """Each is told to some front end, for its metrics."""
        self._peers: list[_Peer] = []

    def _observe_batch(self, slices: int, elements: int, seconds: float) -> None:
        self.batches.append((slices, elements, seconds))

    def connect(self, end: socket.socket) -> None:
        """Serve one more front end, until it goes."""
        self._peers.append(_Peer(self, end, self._peers.remove))

    def close(self) -> None:
        """End all connections."""
        for peer in list(self._peers):
            peer.end()


class _Peer:
    def __init__(self, host: Host, end: socket.socket, on_end: Callable[["_Peer"], None]) -> None:
        self._host = host
        self._on_end = on_end
        self._channel = Channel(end, self._take, self.end)
        self._mappings = Mappings()
        self._box: Box | None = None
        self._futures: dict[int, asyncio.Future[Answer]] = {}
        self._told: dict[str, list[Any]] = {"done": [], "failed": [], "gone": []}
        self._telling = False
        self._loop = asyncio.get_running_loop()
        self._channel.open()

    def end(self) -> None:
        """Forget a front end and what it asked for."""
        self._channel.close()
        for future in list(self._futures.values()):
            future.cancel()
        self._futures.clear()
        self._on_end(self)

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._attend(message, descriptors)
        except Exception:  # such as no more descriptors or mappings; a fresh worker has them
            log.exception("a message of a front end cannot be followed")
            self._host.on_unfit()

    def _attend(self, message: dict[str, Any], descriptors: list[int]) -> None:
        for number, descriptor in zip(message.get("segments", ()), descriptors, strict=True):
            self._mappings.add(number, descriptor)
        if "box" in message:
            self._box = Box(self._mappings.view(Place(*message["box"]), Box.CELLS, np.uint64))
        for parts in message.get("submit", ()):
            self._submit(parts)
        for number in message.get("withdraw", ()):
            future = self._futures.get(number)
            if future is None or future.cancel():
                # Else the answer is on its way, and says that the memory is free.
                self._futures.pop(number, None)
                self._tell("gone", number)
        for number in message.get("drop", ()):
            self._mappings.drop(number)

    def _submit(self, parts: list[Any]) -> None:
        number = parts[0]
        try:
            row = Row.of(parts)
            options = unpack_options(row.options)
            dtype = DTYPES[row.dtype]
            view = self._mappings.view
            offsets = view(row.offsets, row.series + 1, np.int64).copy()
            prediction = view(row.prediction, row.elements, row.dtype)
            target = view(row.target, row.elements, row.dtype)
            layout = Layout(options, dtype, row.series, row.elements)
            block = view(row.answer, layout.size, np.uint8)
            ragged = Ragged(prediction, offsets)
            future = self._host.engine.submit(
                ragged,
                ragged.like(target),
                options,
                deadline=math.inf if row.deadline is None else row.deadline,
                alone=row.alone,
                watch=self._watch(number),
                traceparent=row.traceparent,
            )
        except ServiceError as error:
            if self._host.engine.lost:  # the next worker can do it
                self._host.on_lost()
            self._fail(number, error)
        except Exception as error:
            log.exception("a front end sent a request that makes no sense")
            self._fail(number, ScoringError(f"the device worker refused it: {error}"))
        else:
            self._futures[number] = future
            future.add_done_callback(lambda done: self._settle(number, done, layout, block))

    def _watch(self, number: int) -> Callable[[bool], None] | None:
        box = self._box
        if box is None:
            return None
        return lambda on_device: box.put(number, on_device=on_device)

    def _settle(
        self,
        number: int,
        done: asyncio.Future[Answer],
        layout: Layout,
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
        if layout.size > _COPIED_AT_ONCE:
            copied = self._loop.run_in_executor(None, layout.write, block, answer.scores)
            copied.add_done_callback(lambda copied: self._done(number, answer, copied.exception()))
            return
        try:
            layout.write(block, answer.scores)
        except Exception as failed:  # noqa: BLE001 - whatever it is, the front end must know
            self._done(number, answer, failed)
        else:
            self._done(number, answer, None)

    def _done(self, number: int, answer: Answer, error: BaseException | None) -> None:
        self._futures.pop(number, None)
        if error is None:
            self._tell("done", [number, answer.queue_s, answer.compute_s])
        else:
            self._fail(number, ScoringError(f"the answer could not be written: {error}"))

    def _fail(self, number: int, error: BaseException) -> None:
        after = error.retry_after_s if isinstance(error, OverloadedError) else None
        self._tell("failed", [number, type(error).__name__, str(error), after])

    def _tell(self, what: str, about: Any) -> None:
        """Say it with whatever else there is to say once the loop gets round to it."""
        self._told[what].append(about)
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._telling = False
        batches = self._host.batches
        while any(self._told.values()):
            message = {what: about[:_TOGETHER] for what, about in self._told.items() if about}
            for about in self._told.values():
                del about[:_TOGETHER]
            told = [batches.popleft() for _ in range(min(len(batches), _TOGETHER))]
            self._channel.send({**message, "batches": told})

"""A thread that compiles what a request needs before it is queued, so that no other waits."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from loss_scoring.service.engine.worker import DeviceWorker, Slice

_Done = Callable[[Exception | None], None]


class Compiler:
    """Compiles in turn; the thread is a daemon, so that the process need not wait for it."""

    def __init__(self, worker: DeviceWorker) -> None:
        self._worker = worker
        self._waiting: SimpleQueue[tuple[Slice, _Done]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def compile(self, part: Slice, done: _Done) -> None:
        """Compile for a slice, then call ``done`` on the thread with what failed, if anything did.

        Raises:
            RuntimeError: If no thread can be started.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="compile", daemon=True)
            thread.start()
            self._thread = thread
        self._waiting.put((part, done))

    def _run(self) -> None:
        while True:
            part, done = self._waiting.get()
            failed = None
            try:
                self._worker.compile_for(part)
            except Exception as error:  # noqa: BLE001 - the request fails of it
                failed = error.with_traceback(None)
            done(failed)
            del part, done, failed  # while it waits for the next

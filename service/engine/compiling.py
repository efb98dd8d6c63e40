"""A thread that compiles what a request needs before it is queued, so that no other waits."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

_Work = Callable[[], None]
_Done = Callable[[Exception | None], None]


class Compiler:
    """Compiles in turn; the thread is a daemon, so that the process need not wait for it."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[_Work, _Done]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def compile(self, work: _Work, done: _Done) -> None:
        """Do the work, then call ``done`` on the thread with what failed, if anything did.

        Neither should hold the request, which may end before its turn comes.

        Raises:
            RuntimeError: If no thread can be started.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="compile", daemon=True)
            thread.start()
            self._thread = thread
        self._waiting.put((work, done))

    def _run(self) -> None:
        while True:
            work, done = self._waiting.get()
            failed = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the request fails of it
                failed = error.with_traceback(None)
            done(failed)
            del work, done, failed  # while it waits for the next

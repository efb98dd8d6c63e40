"""A connection without sockets or sleeps: a transport that records, a loop whose clock the test sets."""

import math

import uvicorn
from uvicorn.server import ServerState

from loss_scoring.service.server.protocol import bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

POST = b"POST /score HTTP/1.1\r\nHost: x\r\n"
WHOLE = POST + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n"


class Timer:
    def __init__(self, due, callback):
        self.due, self.callback = due, callback

    def cancel(self):
        self.due = math.inf


class Loop:
    """Runs no task: a request that came in stays unanswered until the test answers it."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.call_later(0, callback)

    def call_later(self, delay, callback):
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def create_task(self, coroutine):
        coroutine.close()
        return self

    def add_done_callback(self, callback):
        pass

    def pass_time(self, seconds):
        end = self.now + seconds
        while (first := min(self.timers, key=lambda timer: timer.due)).due <= end:
            self.now = first.due
            first.cancel()
            first.callback()
        self.now = end


class Transport:
    def __init__(self):
        self.written, self.ended, self.closing, self.aborted = b"", False, False, False
        self.reading = True

    def get_extra_info(self, name):
        return None

    def write(self, data):
        self.written += data

    def write_eof(self):
        self.ended = True

    def close(self):
        self.closing = True

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


async def app(scope, receive, send):
    pass


def connected(loop, transport):
    config = uvicorn.Config(app, log_config=None)
    made = bounded(Settings(max_header_bytes=1000), Metrics())(config, ServerState(), {}, loop)
    made.connection_made(transport)
    return made


def answered(protocol) -> None:
    """Pretend that the application answered the request that is served."""
    protocol.cycle.response_complete = True
    protocol.on_response_complete()

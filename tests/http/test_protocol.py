"""The bounded protocol without sockets or sleeps: a transport that records, a clock that is told."""

import math

import pytest
import uvicorn
from scrape import total
from uvicorn.server import ServerState

from service.http.protocol import bounded
from service.settings import Settings
from service.telemetry.metrics import Metrics

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
        pass

    def resume_reading(self):
        pass


async def app(scope, receive, send):
    pass


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def protocol(loop, transport):
    config = uvicorn.Config(app, log_config=None)
    made = bounded(Settings(max_header_bytes=1000), Metrics())(config, ServerState(), {}, loop)
    made.connection_made(transport)
    return made


def answered(protocol) -> None:
    """Pretend that the application answered the newest request."""
    protocol.cycle.response_complete = True


@pytest.mark.parametrize("before", [b"", b"x" * 3000])
@pytest.mark.parametrize(("extra", "status"), [(900, b""), (1000, b"431")])
def test_the_bound_is_on_each_head_even_behind_a_body(protocol, transport, before, extra, status):
    first = POST + b"Content-Length: %d\r\n\r\n" % len(before) + before if before else b""
    protocol.data_received(first + POST + b"X: " + b"x" * extra + b"\r\n\r\n")
    if before:
        assert transport.written == b""
        protocol.on_response_complete()
    assert transport.written[9:12] == status


def test_the_part_of_a_head_behind_a_large_body_is_not_counted_with_it(protocol, transport):
    protocol.data_received(POST + b"Content-Length: 3000\r\n\r\n" + b"x" * 3000 + WHOLE[:9])
    answered(protocol)
    protocol.data_received(WHOLE[9:])
    assert transport.written == b""
    assert protocol.cycle.scope["headers"][1] == (b"content-length", b"2")


def test_trailers_are_bounded_and_their_request_is_given_up(protocol, transport):
    protocol.data_received(CHUNKED + b"0\r\n")
    protocol.data_received(b"X: y\r\n" * 150)
    assert transport.written == b""
    protocol.data_received(b"X: y\r\n" * 50)
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert protocol.cycle.disconnected


def test_no_second_answer_is_written_into_one_under_way(protocol, transport):
    protocol.data_received(CHUNKED)
    protocol.cycle.response_started = True
    protocol.data_received(b"z")
    assert transport.aborted
    assert transport.written == b""


@pytest.mark.parametrize("start", [b"GET /livez", b"GET /livez HTTP/0.9", b"GET /livez HTTP/2.0"])
def test_only_http_1_0_and_1_1_are_spoken(protocol, transport, start):
    protocol.data_received(start + b"\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert protocol.cycle is None


NEXT_FAULTS = [
    b"no request\r\n\r\n",
    b"GET /\r\n\r\n",
    POST + b"X: " + b"x" * 1000 + b"\r\n\r\n",
    CHUNKED + b"z",
]


@pytest.mark.parametrize("fault", NEXT_FAULTS)
@pytest.mark.parametrize("reads", [1, 2])
def test_a_request_is_answered_before_the_fault_of_the_next_one(
    protocol, transport, loop, fault, reads
):
    first = WHOLE + WHOLE
    if reads == 1:
        protocol.data_received(first + fault)
    else:
        protocol.data_received(first)
        protocol.data_received(fault)
    waiting = list(protocol.pipeline)
    assert len(waiting) == 1, "the faulty one is not served"
    loop.pass_time(30)
    assert transport.written == b""
    assert not transport.aborted
    protocol.on_response_complete()  # the first's
    assert transport.written == b""
    protocol.on_response_complete()
    assert transport.written[:11] in {b"HTTP/1.1 40", b"HTTP/1.1 43"}
    assert transport.ended
    loop.pass_time(4)
    assert transport.aborted


def test_a_fault_in_the_body_of_the_request_that_is_served_ends_it(protocol, transport):
    protocol.data_received(CHUNKED)
    protocol.data_received(b"z")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert protocol.cycle.disconnected


@pytest.mark.parametrize("rest", [b"", POST[:9], CHUNKED])
def test_who_pipelines_and_then_only_reads_gets_all_answers(protocol, transport, rest):
    protocol.data_received(WHOLE + WHOLE + rest)
    assert protocol.eof_received()
    assert len(protocol.pipeline) == 1, "one without its end is not served"
    protocol.on_response_complete()
    assert not transport.closing
    protocol.on_response_complete()
    assert transport.closing


@pytest.mark.parametrize("sent", [b"", POST[:9], WHOLE, CHUNKED])
def test_who_does_not_pipeline_and_ends_is_gone(protocol, sent):
    protocol.data_received(sent)
    assert not protocol.eof_received()


def test_what_follows_a_refusal_is_ignored_until_the_client_goes_or_time_is_up(
    protocol, transport, loop
):
    protocol.data_received(b"no request\r\n\r\n")
    answer = transport.written
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert transport.ended
    protocol.data_received(WHOLE)
    assert transport.written == answer
    loop.pass_time(1)
    assert not transport.aborted
    loop.pass_time(3)
    assert transport.aborted


def test_a_head_is_not_due_while_the_request_before_it_is_served(protocol, transport, loop):
    protocol.data_received(WHOLE + POST)
    loop.pass_time(100)
    assert transport.written == b""
    answered(protocol)
    loop.pass_time(9)
    assert transport.written == b""
    loop.pass_time(3)
    assert transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_request_that_waits_for_its_body_is_woken(protocol, loop):
    protocol.data_received(CHUNKED)
    protocol.cycle.message_event.clear()
    loop.pass_time(2)
    assert protocol.cycle.message_event.is_set()


def test_a_request_that_is_served_may_take_its_time(protocol, transport, loop):
    protocol.data_received(WHOLE)
    protocol.cycle.message_event.clear()
    loop.pass_time(1000)
    assert not protocol.cycle.message_event.is_set()
    assert not transport.aborted
    assert not transport.closing
    assert transport.written == b""


@pytest.mark.parametrize("how", ["full", "closed"])
def test_what_a_client_does_not_read_is_dropped(protocol, transport, loop, how):
    protocol.data_received(WHOLE)
    if how == "full":
        protocol.pause_writing()
    else:
        transport.close()  # with bytes left to flush
    loop.pass_time(29)
    assert not transport.aborted
    loop.pass_time(3)
    assert transport.aborted


def test_a_client_that_reads_on_is_left_alone(protocol, transport, loop):
    protocol.data_received(WHOLE)
    for _ in range(10):
        protocol.pause_writing()
        loop.pass_time(20)
        protocol.resume_writing()
    assert not transport.aborted


def test_what_it_refuses_and_cuts_off_is_counted(protocol, transport, loop):
    protocol.data_received(POST)
    loop.pass_time(15)
    assert transport.aborted
    text = protocol.metrics.render().decode()
    assert total(text, "loss_scoring_connections_total") == 1
    assert total(text, "loss_scoring_open_connections") == 1
    assert total(text, "loss_scoring_requests_total", status="408") == 1
    assert total(text, "loss_scoring_refusals_total", reason="late") == 1
    assert total(text, "loss_scoring_connections_cut_off_total", reason="lingering") >= 1
    protocol.connection_lost(None)
    assert total(protocol.metrics.render().decode(), "loss_scoring_open_connections") == 0

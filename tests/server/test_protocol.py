"""The bounded protocol without sockets or sleeps: a transport that records, a clock that the test sets."""

import asyncio

import pytest
from fake_connection import CHUNKED, POST, WHOLE, Loop, Transport, answered, connected
from scrape import total
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from loss_scoring.service.limits.body import BUFFERED
from loss_scoring.service.server.protocol import State


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def protocol(loop, transport):
    return connected(loop, transport)


@pytest.mark.parametrize("before", [b"", b"x" * 3000])
@pytest.mark.parametrize(("extra", "status"), [(900, b""), (1000, b"431")])
def test_the_bound_is_on_each_head_even_behind_a_body(protocol, transport, before, extra, status):
    first = POST + b"Content-Length: %d\r\n\r\n" % len(before) + before if before else b""
    protocol.data_received(first + POST + b"X: " + b"x" * extra + b"\r\n\r\n")
    if before:
        assert transport.written == b""
        answered(protocol)
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


def test_a_fault_in_the_body_of_the_request_that_is_served_ends_it(protocol, transport):
    protocol.data_received(CHUNKED)
    protocol.data_received(b"z")
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert protocol.cycle.disconnected


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


def test_how_slowly_a_body_may_come_that_is_waited_for_is_not_decided_here(
    protocol, transport, loop
):
    protocol.data_received(CHUNKED)
    loop.pass_time(1000)
    assert not transport.aborted
    assert not protocol.cycle.message_event.is_set() or protocol.cycle.body


def test_a_body_that_nobody_reads_is_cut_off(protocol, transport, loop):
    protocol.data_received(CHUNKED)
    loop.pass_time(100)
    answered(protocol)
    loop.pass_time(protocol.deadlines[State.BODY] - 1)
    protocol.data_received(b"1\r\n \r\n")
    assert not transport.aborted
    loop.pass_time(3)
    assert transport.aborted, "its end does not come nearer by what arrives"


def test_a_connection_is_idle_since_its_last_answer(protocol, transport, loop):
    protocol.data_received(WHOLE)
    loop.pass_time(1000)
    answered(protocol)
    loop.pass_time(protocol.deadlines[State.IDLE] - 1)
    assert not transport.closing
    loop.pass_time(3)
    assert transport.closing


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


LONG = POST + b"Content-Length: 1000000\r\n\r\n"


def received(protocol):
    """Return the next message of the request that is served, which must be there already."""
    with pytest.raises(StopIteration) as stop:
        protocol.cycle.receive().send(None)
    return stop.value.value


def arrive(protocol, chunk):
    """Pretend that the parser found a chunk of a body."""
    protocol.on_body(chunk)
    protocol._pass_on_body()


def test_chunks_of_a_body_come_in_order_and_uncopied(protocol):
    protocol.data_received(LONG)
    chunks = [b"x" * n for n in (5, 3000, HIGH_WATER_LIMIT)]
    for chunk in chunks:
        arrive(protocol, chunk)
        assert received(protocol) == {"type": "http.request", "body": chunk, "more_body": True}
    arrive(protocol, chunk)
    assert received(protocol)["body"] is chunk


def test_chunks_that_nobody_has_asked_for_are_joined(protocol):
    protocol.data_received(LONG)
    for i in range(1000):
        protocol.data_received(b"%d" % (i % 10))
    assert received(protocol)["body"] == b"0123456789" * 100


def test_whether_the_whole_body_is_there_is_said(protocol):
    protocol.data_received(POST + b"Content-Length: 2\r\n\r\n{")
    assert BUFFERED not in protocol.scope
    protocol.data_received(b"}")
    assert protocol.scope[BUFFERED]
    assert received(protocol) == {"type": "http.request", "body": b"{}", "more_body": False}


def test_an_end_that_comes_late_is_an_empty_chunk(protocol):
    protocol.data_received(CHUNKED)
    assert received(protocol)["more_body"]
    protocol.data_received(b"0\r\n\r\n")
    assert received(protocol) == {"type": "http.request", "body": b"", "more_body": False}


def test_after_the_end_only_a_disconnect_is_news(protocol):
    async def main():
        protocol.data_received(WHOLE)
        assert not (await protocol.cycle.receive())["more_body"]
        waiting = asyncio.ensure_future(protocol.cycle.receive())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        protocol.connection_lost(ConnectionResetError())
        assert (await waiting)["type"] == "http.disconnect"
        assert (await protocol.cycle.receive())["type"] == "http.disconnect"

    asyncio.run(main())


def test_reading_pauses_while_much_of_a_body_waits(protocol, transport):
    async def main():
        protocol.data_received(LONG + b"x" * HIGH_WATER_LIMIT)
        assert transport.reading
        protocol.data_received(b"y")
        assert not transport.reading
        await protocol.cycle.receive()
        waiting = asyncio.ensure_future(protocol.cycle.receive())
        await asyncio.sleep(0)
        assert transport.reading
        protocol.data_received(b"z")
        assert (await waiting)["body"] == b"z"

    asyncio.run(main())


def test_reading_stays_paused_while_much_waits_behind_a_request_that_reads_its_body(
    protocol, transport
):
    for _ in range(3):
        protocol.data_received(LONG[:-11] + b"70000\r\n\r\n" + b"x" * 70000)
    assert not transport.reading
    assert not received(protocol)["more_body"]
    assert not transport.reading
    answered(protocol)
    assert not transport.reading
    assert len(received(protocol)["body"]) == 70000
    assert not transport.reading
    answered(protocol)
    assert transport.reading
    assert len(received(protocol)["body"]) == 70000


def test_a_go_ahead_is_written_once(protocol, transport):
    protocol.data_received(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    protocol.data_received(b"{")
    received(protocol)
    protocol.data_received(b"}")
    received(protocol)
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"

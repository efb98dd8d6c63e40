"""The bounded protocol without sockets or sleeps: a transport that records, a clock that is told."""

import pytest
from scrape import total
from told_connection import CHUNKED, POST, WHOLE, Loop, Transport, answered, connected


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

"""Requests that come before the one before them is answered, without sockets."""

import itertools

import pytest
from fake_connection import CHUNKED, POST, WHOLE, Loop, Transport, answered, connected
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def protocol(loop, transport):
    return connected(loop, transport)


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
    loop.pass_time(30)
    assert transport.written == b""
    assert not transport.aborted
    answered(protocol)
    assert transport.written == b""
    answered(protocol)
    assert transport.written[:11] in {b"HTTP/1.1 40", b"HTTP/1.1 43"}
    assert transport.ended
    loop.pass_time(4)
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


@pytest.mark.parametrize("rest", [b"", POST[:9], CHUNKED])
def test_who_pipelines_and_then_only_reads_gets_all_answers(protocol, transport, rest):
    protocol.data_received(WHOLE + WHOLE + rest)
    assert protocol.eof_received()
    answered(protocol)
    assert not transport.closing
    answered(protocol)
    assert transport.closing, "one without its end is not waited for"


def test_who_pipelined_may_end_later(protocol, transport):
    protocol.data_received(WHOLE + WHOLE)
    answered(protocol)
    assert protocol.eof_received()
    assert not transport.closing
    answered(protocol)
    assert transport.closing


def test_a_flood_of_requests_is_held_in_few_bytes_and_served_one_by_one(protocol, transport):
    protocol.data_received(TINY * 2600)
    assert transport.reading, "so that a disconnect is seen"
    protocol.data_received(TINY * 2600)
    assert not transport.reading
    served = set()
    for _ in range(5200):
        assert protocol.cycle not in served
        served.add(protocol.cycle)
        assert not protocol.pipeline
        answered(protocol)
        assert transport.reading == (len(TINY) * (5199 - len(served)) <= 65536)
    assert protocol.cycle in served
    assert transport.written == b""


@pytest.mark.parametrize("behind", [b"", WHOLE, WHOLE[:20]])
def test_a_connection_that_breaks_ends_the_request_that_is_served(protocol, transport, behind):
    protocol.data_received(WHOLE + behind)
    served = protocol.cycle
    protocol.connection_lost(ConnectionResetError())
    assert served.disconnected
    transport.closing = True
    answered(protocol)
    assert protocol.cycle is served, "nothing more is served"


def got(protocol):
    """Return the target and the body of the request that is served."""
    body = b""
    while True:
        with pytest.raises(StopIteration) as stop:
            protocol.cycle.receive().send(None)
        message = stop.value.value
        body += message["body"]
        if not message["more_body"]:
            return protocol.cycle.scope["path"].encode(), body


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
BODIES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n\r\n", b"0", b"GET / HTTP/1.1", b" "])).map(
    b"".join
)


@st.composite
def requests(draw):
    """Return a request as bytes, and its target and body."""
    body, path = draw(BODIES), b"/%d" % draw(st.integers(0, 99))
    start = (
        draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
        + b"POST "
        + path
        + b" HTTP/1.1\r\nHost: x\r\n"
    )
    start += draw(
        st.sampled_from([b"", H2C, b"upgrade:  WebSocket \r\nconnection: keep-alive,upgrade\r\n"])
    )
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    if kind == "none":
        return start + draw(st.sampled_from([b"", b"X:\r\n"])) + b"\r\n", (path, b"")
    if kind == "length":
        return start + b"content-LENGTH:  %d \r\n\r\n" % len(body) + body, (path, body)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    parts = [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
    trailer = draw(st.sampled_from([b"", b"T:\r\n"]))
    coded = b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
    return start + b"Transfer-Encoding: chunked\r\n\r\n" + coded, (path, body)


TINY = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"


@pytest.mark.parametrize("first", [TINY, CHUNKED + b"0\r\n\r\n"])
@pytest.mark.parametrize("left", [1, 2, 3, 4])
@pytest.mark.parametrize("single", [False, True])
def test_an_end_that_is_torn_by_a_read_is_seen(protocol, first, left, single):
    start = first[:-left]
    for part in [bytes([one]) for one in start] if single else [start]:
        protocol.data_received(part)
    assert protocol.cycle is None or protocol.cycle.more_body
    protocol.data_received(first[-left:] + TINY)
    served = protocol.cycle
    assert not served.more_body
    assert not protocol.pipeline
    answered(protocol)
    assert protocol.cycle is not served


@given(st.lists(requests(), min_size=1, max_size=5), st.data())
def test_however_requests_are_cut_into_reads_each_is_served_alone(sent, data):
    stream = b"".join(one for one, _ in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    protocol = connected(Loop(), Transport())
    seen, served = [], set()

    def serve():
        protocol.loop.pass_time(0)
        while protocol._is_serving():
            assert not protocol.pipeline
            seen.append(got(protocol))
            served.add(protocol.cycle)
            answered(protocol)
            protocol.loop.pass_time(0)

    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        if end > start:
            protocol.data_received(stream[start:end])
        if data.draw(st.booleans()):
            serve()
    serve()
    assert seen == [request for _, request in sent]
    assert len(served) == len(sent)
    assert protocol.transport.written == b""


@pytest.mark.parametrize(
    "end", [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\n\r", b"\r\r\n", b"\r\n \r\n\r\n"]
)
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1", POST + b"A: b", CHUNKED + b"0"])
def test_no_other_end_of_line_begins_a_request_unseen(protocol, transport, start, end):
    protocol.data_received(start + end + WHOLE)
    assert not protocol.pipeline
    assert transport.written.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("sent", [b"", POST[:9], WHOLE, CHUNKED])
def test_who_does_not_pipeline_and_ends_is_gone(protocol, sent):
    protocol.data_received(sent)
    assert not protocol.eof_received()

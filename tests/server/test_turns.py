"""A turn of the event loop parses little framing of a connection, and the rest in the next turns."""

import pytest
from fake_connection import CHUNKED, POST, Loop, Transport, answered, connected

OPEN = POST + b"Transfer-Encoding: chunked\r\n\r\n"
READ = 250_000
END = b"0\r\n\r\n"


@pytest.fixture
def protocol():
    return connected(Loop(), Transport())


@pytest.fixture
def fed(protocol):
    """How many bytes the parser was given, call by call."""
    parser, sizes = protocol.parser, []

    class Counting:
        def __getattr__(self, name):
            return getattr(parser, name)

        def feed_data(self, part):
            sizes.append(len(part))
            parser.feed_data(part)

    protocol.parser = Counting()
    return sizes


def read_all(protocol):
    """Take the body as it comes, turn by turn; return it and the number of turns."""
    body, turns, cycle = b"", 0, protocol.cycle
    while True:
        body += cycle.body
        cycle.body = b""
        if not cycle.more_body:
            return body, turns
        turns += 1
        assert turns < 500
        protocol.loop.pass_time(0)


class OneByOne(Loop):
    """A loop whose turns the test takes."""

    def pass_time(self, seconds):
        due = [timer for timer in self.timers if timer.due <= self.now + seconds]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.callback()


@pytest.mark.parametrize(
    ("chunk", "content"),
    [(b"1\r\n \r\n", b" "), (b"2\r\n\r\n\r\n", b"\r\n"), (b"5\r\n0\r\n\r\n\r\n", b"0\r\n\r\n"), (b"1;a=b\r\n \r\n", b" "),
     (b"a\r\n0123456789\r\n", b"0123456789"), (b"800\r\n%b\r\n" % (b"\r\n" * 1024), b"\r\n" * 1024)],
)  # fmt: skip
def test_tiny_chunks_come_a_few_in_a_turn_and_whole_in_the_end(protocol, fed, chunk, content):
    protocol.loop = loop = OneByOne()
    count = READ // len(chunk)
    protocol.data_received(OPEN + chunk * count + END)
    assert sum(fed) < READ / 3
    assert not protocol.transport.reading
    most = 0

    def turn(_seconds):
        nonlocal most
        fed.clear()
        OneByOne.pass_time(loop, 0)
        most = max(most, sum(fed))

    loop.pass_time = turn
    body, turns = read_all(protocol)
    assert body == content * count
    assert turns > 1
    assert most < READ / 3
    assert protocol.transport.reading


def test_large_chunks_and_known_lengths_are_parsed_at_once(protocol, fed):
    protocol.data_received(OPEN + b"fa00\r\n%b\r\n" % (b"\r\n\n\n" * 16000) * 3)
    assert sum(fed) >= 3 * 64000
    other = connected(Loop(), Transport())
    other.data_received(POST + b"Content-Length: 250000\r\n\r\n" + b"\r\n" * 125_000)
    assert not other.cycle.more_body


def test_an_answer_that_comes_before_the_end_of_the_chunks_changes_nothing(protocol):
    protocol.loop = OneByOne()
    protocol.data_received(OPEN + b"2\r\n\r\n\r\n" * 5000 + END + CHUNKED)
    answered(protocol)
    first = protocol.cycle
    for _ in range(50):
        protocol.loop.pass_time(0)
    assert protocol.cycle is not first
    assert protocol.cycle.body == b" "


def test_empty_lines_before_a_request_are_bounded(protocol, fed):
    protocol.data_received(b"\r\n" * 125_000)
    assert sum(fed) <= 8192
    protocol.loop.pass_time(0)
    assert protocol.transport.written.startswith(b"HTTP/1.1 431 ")
    assert protocol.transport.reading
    assert not protocol._backlog


def test_a_fault_behind_many_chunks_is_refused_once(protocol):
    protocol.data_received(OPEN + b"2\r\n\r\n\r\n" * 5000 + b"z")
    protocol.loop.pass_time(0)
    assert protocol.transport.written.count(b"HTTP/1.1 400 ") == 1
    assert protocol.cycle.disconnected


@pytest.mark.parametrize("closing", [True, False])
def test_a_connection_that_ends_meanwhile_is_left_alone(protocol, closing):
    protocol.data_received(OPEN + b"2\r\n\r\n\r\n" * 5000 + END)
    if closing:
        protocol.transport.closing = True
    else:
        protocol.connection_lost(ConnectionResetError())
    protocol.loop.pass_time(0)
    assert protocol.cycle.more_body


@pytest.mark.parametrize(("count", "status"), [(256, b""), (257, b"431")])
def test_header_lines_are_bounded(protocol, count, status):
    protocol.max_head = 10_000
    protocol.data_received(POST + b"a:\r\n" * (count - 1) + b"\r\n")
    assert protocol.transport.written[9:12] == status


def test_a_long_head_does_not_put_off_its_body(protocol):
    protocol.max_head = 10_000
    protocol.data_received(POST + b"Content-Length: %09000d\r\n\r\n{}" % 2)
    assert not protocol.cycle.more_body


@pytest.mark.parametrize("end", [END, b""])
def test_a_client_that_ends_behind_its_chunks_is_answered_if_they_are_whole(protocol, end):
    protocol.data_received(OPEN + b"2\r\n\r\n\r\n" * 1000 + end)
    assert protocol.eof_received()
    protocol.loop.pass_time(0)
    assert protocol.cycle.more_body == (not end)
    assert protocol.transport.closing == (not end)
    answered(protocol)
    assert protocol.transport.closing

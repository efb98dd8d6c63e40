"""What RFC 9110 and 9112 ask of a head: what is refused, with which status, and what is not."""

import json

import pytest
from fake_connection import Loop, Transport, connected

BODY = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.fixture
def send():
    """Send a request; the status of its refusal, 0 if it is served."""

    def send(*fields, start=b"POST /score HTTP/1.1", body=b""):
        send.protocol = connected(Loop(), Transport())
        send.protocol.data_received(b"\r\n".join([start, *fields, b"", body]))
        written = send.protocol.transport.written
        assert written.count(b"HTTP/1.1 ") <= 1
        if not written:
            assert send.protocol.cycle is not None
            return 0
        head, _, document = written.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\nx-request-id: " in head
        assert json.loads(document)["detail"]
        return int(head[9:12])

    return send


HTTP_1_0 = b"POST /score HTTP/1.0"


@pytest.mark.parametrize(
    ("hosts", "status", "of_1_0"),
    [((), 400, 0), ((b"Host: a", b"Host: a"), 400, 400), ((b"Host: a", b"host: b"), 400, 400),
     *(((b"Host:" + host,), 400, 400) for host in (b" a b", b"a/", b"u@a", b"\xe4", b"a:x", b"[", b"[x]", b'"')),
     *(((b"Host:" + host,), 0, 0) for host in (b"", b" a", b" a-b.c_d:8000", b"1.2.3.4:", b"[::1]:80", b"a,b", b"%41 "))],
)  # fmt: skip
def test_exactly_one_host(send, hosts, status, of_1_0):
    assert send(*hosts, b"Content-Length: 0") == status
    assert send(*hosts, b"Content-Length: 0", start=HTTP_1_0) == of_1_0


@pytest.mark.parametrize(
    ("codings", "status"),
    [(b" chunked", 0), (b"Chunked ", 0), (b"gzip, chunked", 501), (b"identity, chunked", 501),
     (b"gzip\r\nTransfer-Encoding: chunked", 501), (b"gzip;q=1,chunked", 501), (b"gzip", 400),
     (b"chunked, gzip", 400), (b"chunked, chunked", 400), (b"", 400), (b"chunked;a=b", 400)],
)  # fmt: skip
def test_of_transfer_codings_only_chunked_is_read(send, codings, status):
    field = b"Transfer-Encoding:" + codings
    assert send(b"Host: x", field, body=BODY) == status
    assert send(b"Host: x", field, start=HTTP_1_0, body=BODY) == 400


@pytest.mark.parametrize("other", [b"Content-Length: 12", b"Content-Length:  5 \t"])
def test_a_body_has_one_length(send, other):
    fields = b"Host: x", b"Transfer-Encoding: chunked"
    assert send(*fields, other, body=BODY) == 400
    assert send(fields[0], other, fields[1], body=BODY) == 400


@pytest.mark.parametrize(
    ("length", "status"),
    [(b" 2 ", 0), (b"\t2\t", 0), (b"0" * 500 + b"2", 0), (b"2, 2", 400), (b"+2", 400), (b"-2", 400),
     (b"", 400), (b"0x2", 400), (b"2\r\n 2", 400), (b"2\r\nContent-Length: 2", 400), (b"9" * 19, 413)],
)  # fmt: skip
def test_a_length_is_a_number(send, length, status):
    assert send(b"Host: x", b"Content-Length:" + length, body=b"{}") == status
    if status == 0:
        assert not send.protocol.cycle.more_body
        assert send.protocol.cycle.body == b"{}"


@pytest.mark.parametrize(
    ("expected", "status", "waits"),
    [(b" 100-continue", 0, True), (b"100-Continue ", 0, True), (b"100-continue, ", 0, True), (b"", 0, False),
     (b"200-ok", 417, False), (b"100-continue, a=b", 417, False), (b"100-continue\r\nExpect: a", 417, False)],
)  # fmt: skip
def test_what_is_expected(send, expected, status, waits):
    fields = b"Host: x", b"Content-Length: 2", b"Expect:" + expected
    assert send(*fields) == status
    if status == 0:
        assert send.protocol.cycle.waiting_for_100_continue == waits
    assert send(*fields, start=HTTP_1_0) == 0
    assert not send.protocol.cycle.waiting_for_100_continue


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [(b"/score?a", "/score", b"a"), (b"http://x/score?a", "/score", b"a"), (b"HTTPS://u:p@x:1/score", "/score", b""),
     (b"http://x", "/", b""), (b"http://x?a=/b", "/", b"a=/b"), (b"//x/y", "//x/y", b"")],
)  # fmt: skip
def test_a_target_may_be_a_url(send, target, path, query):
    assert send(b"Host: y", start=b"POST %b HTTP/1.1" % target) == 0
    scope = send.protocol.cycle.scope
    assert (scope["path"], scope["query_string"]) == (path, query)


@pytest.mark.parametrize("target", [b"*", b"ftp://x/score", b"http:///score", b"x:80", b"score"])
def test_other_targets_are_refused(send, target):
    assert send(b"Host: x", start=b"POST %b HTTP/1.1" % target) == 400


def test_options_may_be_of_no_path(send):
    assert send(b"Host: x", start=b"OPTIONS * HTTP/1.1") == 0


@pytest.mark.parametrize(
    ("start", "status"),
    [(b"CONNECT x:80 HTTP/1.1", 400), (b"FETCH /score HTTP/1.1", 501), (b"post /score HTTP/1.1", 501),
     (b"G@T /score HTTP/1.1", 400), (b"\x16\x03\x01 / HTTP/1.1", 400), (b"TRACE /score HTTP/1.1", 0),
     (b"PROPFIND /score HTTP/1.1", 0)],
)  # fmt: skip
def test_methods(send, start, status):
    assert send(b"Host: x", start=start) == status


@pytest.mark.parametrize("value", [b"a\r\n b", b"a\x00b", b"a\nb", b"a\rb", b"\x7f"])
def test_folded_lines_and_controls_are_refused(send, value):
    assert send(b"Host: x", b"A: " + value) == 400


def test_blanks_around_a_value_are_not_of_it(send):
    assert send(b"Host: x", b"A:\t b c\xff \t ", b"B: ") == 0
    assert send.protocol.cycle.scope["headers"][1:] == [(b"a", b"b c\xff"), (b"b", b"")]

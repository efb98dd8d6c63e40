"""The head of an answer goes out with its body, and is never lost."""

import socket

import pytest
from test_protocol import Transport

from loss_scoring.service.server.head import HeadHolder

HEAD, BODY = b"HTTP/1.1 200 OK\r\n\r\n", b"{}"


class Writes(Transport):
    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, data):
        self.calls.append(data)

    def writelines(self, parts):
        self.calls.append(b"".join(parts))


@pytest.fixture
def transport():
    return Writes()


def test_head_and_body_are_one_write_and_what_follows_passes(transport):
    holder = HeadHolder(transport)
    for data in (HEAD, BODY, BODY):
        holder.write(data)
    assert transport.calls == [HEAD + BODY, BODY]


def test_an_empty_body_brings_the_head_out(transport):
    holder = HeadHolder(transport)
    holder.write(HEAD)
    assert transport.calls == []
    holder.write(b"")
    assert transport.calls == [HEAD]


def test_an_interim_answer_is_written_at_once(transport):
    holder = HeadHolder(transport)
    holder.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(transport.calls) == 1
    holder.write(HEAD)
    holder.write(BODY)
    assert transport.calls[1:] == [HEAD + BODY]


def test_a_head_whose_body_never_comes_is_written_before_the_end(transport):
    holder = HeadHolder(transport)
    holder.write(HEAD)
    holder.close()
    assert transport.calls == [HEAD]
    assert transport.closing
    assert holder.is_closing()


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_pipelined_requests_of_all_kinds_are_answered_in_order(url, expect):
    host, port = url.removeprefix("http://").split(":")
    body = b'{"series":[{"prediction":[1],"target":[3]}]}'
    fields = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    post = b"POST /score HTTP/1.1\r\n" + expect + fields + b"\r\n" + body
    head = b"HEAD /losses HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(post + head + post + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    finals = [
        line for line in answer.split(b"\r\n") if b"HTTP/1.1 " in line and b" 100 " not in line
    ]
    assert [line[-len(b"200 OK") :] for line in finals] == [b"200 OK"] * 4
    assert answer.count(b'"mae":[2.0]') == 2


def test_a_refusal_before_the_go_ahead_ends_the_connection(url):
    host, port = url.removeprefix("http://").split(":")
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"connection: close" in answer.lower()

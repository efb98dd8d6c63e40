"""Answers come in order, over sockets."""

import socket

import pytest


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

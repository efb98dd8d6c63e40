"""What RFC 9110 and 9112 ask of a request's head beyond its grammar, which the parser knows.

    Host                exactly one in HTTP/1.1, at most one in HTTP/1.0; a name or address
    Transfer-Encoding   chunked; 501 if it codes what is coded already, else 400, as in HTTP/1.0
    Expect              100-continue, else 417; nothing in HTTP/1.0
    target              a path, "*" with OPTIONS, or an absolute URL, whose path is taken

Lengths that are repeated, listed, signed or beside a Transfer-Encoding, folded lines and bare line
feeds are refused by the parser.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from loss_scoring.service.errors import (
    ExpectationError,
    MalformedError,
    TooLargeError,
    UnimplementedError,
)
from loss_scoring.service.limits.body import whole_number

_Fields = Iterable[tuple[bytes, bytes]]

_READ = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(rb"https?://[^/?#]+(.*)", re.IGNORECASE)


def read_head(headers: _Fields, version: str) -> tuple[int, bool]:
    """Return the length of the body, 0 if only its end tells it, and whether 100 Continue is due.

    Args:
        headers: Names in lower case, values without blanks around them.
        version: ``1.0`` or ``1.1``.

    Raises:
        MalformedError: If the head is not one of HTTP.
        TooLargeError: If the body is longer than any.
        UnimplementedError: If the body has a transfer coding that is not read.
        ExpectationError: If Expect asks for what is not known.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in fields:
                if name == b"host":
                    raise MalformedError("the Host header is given twice")
                value = fields[name] + b"," + value  # noqa: PLW2901 - RFC 9110, 5.3
            fields[name] = value
    _check_host(fields.get(b"host"), version)
    if b"transfer-encoding" in fields:
        _check_codings(fields[b"transfer-encoding"], version)
    length = whole_number(fields.get(b"content-length", b"0"))
    if length is None:
        raise TooLargeError("no body is as long as its Content-Length says")
    expected = fields.get(b"expect") if version == "1.1" else None
    if expected and set(_members(expected)) != {b"100-continue"}:
        raise ExpectationError("of Expect only 100-continue is known")
    return length, bool(expected)


@lru_cache(maxsize=64)  # clients repeat it
def _check_host(host: bytes | None, version: str) -> None:
    if host is None:
        if version == "1.1":
            raise MalformedError("the Host header is missing")
    elif not _HOST.fullmatch(host):
        raise MalformedError("the Host header is not the name or address of a host")


def _check_codings(codings: bytes, version: str) -> None:
    """Raise unless a body is chunked and nothing else."""
    if version == "1.0":
        raise MalformedError("HTTP/1.0 has no Transfer-Encoding")
    *others, last = _members(codings) or [b""]
    if last != b"chunked":
        raise MalformedError("the last Transfer-Encoding must be chunked, or the body has no end")
    if others:
        raise UnimplementedError(
            "of Transfer-Encoding only chunked is read; compression is a Content-Encoding"
        )


def _members(value: bytes) -> list[bytes]:
    members = [member.strip(b" \t").lower() for member in value.split(b",")]
    return [member for member in members if member]


def path_of(target: bytes, method: bytes) -> bytes:
    """Return the path and query of a target that does not begin with a slash.

    Raises:
        MalformedError: If it has none.
    """
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise MalformedError("the target is neither a path nor an http URL")
    path = absolute[1]
    return path if path.startswith(b"/") else b"/" + path

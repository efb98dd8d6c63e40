"""Which format a body is in, and which one the answer is to be in."""

from collections.abc import Mapping
from email.message import Message
from functools import lru_cache

from loss_scoring.service.codecs import arrow, json
from loss_scoring.service.codecs.codec import Formats
from loss_scoring.service.errors import (
    NotAcceptableError,
    UnsupportedCodingError,
    UnsupportedMediaError,
)

FORMATS = {"json": json.MEDIA_TYPE, "arrow": arrow.MEDIA_TYPE}
_CODINGS = {
    "": "identity",
    "identity": "identity",
    "gzip": "gzip",
    "x-gzip": "gzip",  # RFC 9110, 8.4.1.3
    "zstd": "zstd",
}
_FORM = "send the document itself, not a form; curl does with -H 'Content-Type: ...' or --json"
_PARQUET = (
    "Parquet is not read over HTTP; send its table as an Arrow stream, or use loss-scoring score"
)
_ARROW_FILE = "that is an Arrow file; write a stream, as pyarrow.ipc.new_stream does"
_ARROW = f"did you mean {arrow.MEDIA_TYPE}?"
_JSON = f"did you mean {json.MEDIA_TYPE}?"
_HINTS = {
    "application/x-www-form-urlencoded": _FORM,
    "multipart/form-data": _FORM,
    **dict.fromkeys(
        (
            "application/parquet",
            "application/vnd.apache.parquet",
            "application/x-parquet",
        ),
        _PARQUET,
    ),
    "application/vnd.apache.arrow.file": _ARROW_FILE,
    **dict.fromkeys(
        ("application/arrow", "application/vnd.apache.arrow", "application/x-apache-arrow-stream"),
        _ARROW,
    ),
    **dict.fromkeys(("application/x-json", "text/json", "text/plain"), _JSON),
    **dict.fromkeys(
        ("application/jsonl", "application/ndjson", "application/x-ndjson"),
        "lines of JSON are not read; send one JSON document",
    ),
    "text/csv": "CSV is not read over HTTP; send JSON or Arrow, or use loss-scoring score",
}
"""What whoever sends such a type may mean."""
_MAX_CACHED_BYTES = 512
_MAX_TYPE_BYTES = 256
"""Parsing one takes a time that grows with its square."""


def negotiate(headers: Mapping[bytes, bytes]) -> Formats:
    """Read Content-Type, Content-Encoding and Accept; their names are in lower case.

    Raises:
        UnsupportedMediaError: If the body's type or coding is not spoken here.
        NotAcceptableError: If Accept allows neither format.
    """
    given = (
        headers.get(b"content-type", b""),
        headers.get(b"content-encoding", b""),
        headers.get(b"accept", b""),
    )
    if sum(map(len, given)) > _MAX_CACHED_BYTES:
        return _negotiate(*given)
    return _negotiate_cached(*given)


def _negotiate(*given: bytes) -> Formats:
    content_type, encoding, accept = [value.decode("latin-1") for value in given]
    coding = _CODINGS.get(encoding.strip().lower())
    if coding is None:
        raise UnsupportedCodingError(
            f"Content-Encoding {encoding!r} is not supported; use gzip or zstd, not both, or none"
        )
    request = _request_format(content_type)
    return Formats(request, _answer_format(accept, request), coding)


_negotiate_cached = lru_cache(maxsize=256)(_negotiate)


def _request_format(content_type: str) -> str:
    for name, media_type in FORMATS.items():
        if content_type == media_type:  # the common case, without parsing
            return name
    if len(content_type) > _MAX_TYPE_BYTES:
        raise UnsupportedMediaError(f"Content-Type is longer than {_MAX_TYPE_BYTES} bytes")
    header = Message()
    header["content-type"] = content_type
    charset = str(header.get_param("charset", "utf-8")).lower()
    for name, media_type in FORMATS.items():
        if content_type and header.get_content_type() == media_type:
            if name == "json" and charset not in ("utf-8", "utf8"):
                raise UnsupportedMediaError(f"charset {charset!r} is not supported; use UTF-8")
            return name
    known = " or ".join(FORMATS.values())
    if not content_type:
        raise UnsupportedMediaError(f"Content-Type is missing; it must be {known}")
    hint = _HINTS.get(content_type.partition(";")[0].strip().lower())
    raise UnsupportedMediaError(
        f"Content-Type must be {known}, not {content_type!r}" + (f"; {hint}" if hint else "")
    )


def _answer_format(accept: str, request: str) -> str:
    if accept in ("", "*/*", FORMATS[request]):  # the common case, without parsing
        return request
    best, best_quality = "", 0.0
    # The request's own format comes first, so that it wins a tie.
    for name in sorted(FORMATS, key=lambda name: name != request):
        quality = _quality(accept, FORMATS[name])
        if quality > best_quality:
            best, best_quality = name, quality
    if not best:
        known = " and ".join(FORMATS.values())
        raise NotAcceptableError(f"Accept is {accept!r} and allows neither of {known}")
    return best


def _quality(accept: str, media_type: str) -> float:
    """Return the quality of the most specific range in ``accept`` that covers a media type."""
    kind = media_type.split("/", maxsplit=1)[0]
    ranks = {media_type: 3, f"{kind}/*": 2, "*/*": 1}
    rank, quality = 0, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if ranks.get(name, 0) > rank:
            rank, quality = ranks[name], _q(parameters)
    return quality


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0

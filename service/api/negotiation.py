"""The formats of a body and of its answer, by Content-Type, Content-Encoding and Accept."""

from collections.abc import Mapping
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
_HINTS = {
    "send the document itself, not a form; curl does with -H 'Content-Type: ...' or --json": (
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ),
    "Parquet is not read over HTTP; send its table as an Arrow stream, or use loss-scoring score": (
        "application/parquet",
        "application/vnd.apache.parquet",
        "application/x-parquet",
    ),
    "that is an Arrow file; write a stream, as pyarrow.ipc.new_stream does": (
        "application/vnd.apache.arrow.file",
    ),
    f"did you mean {arrow.MEDIA_TYPE}?": (
        "application/arrow",
        "application/vnd.apache.arrow",
        "application/x-apache-arrow-stream",
    ),
    f"did you mean {json.MEDIA_TYPE}?": ("application/x-json", "text/json", "text/plain"),
    "lines of JSON are not read; send one JSON document": (
        "application/jsonl",
        "application/ndjson",
        "application/x-ndjson",
    ),
    "CSV is not read over HTTP; send JSON or Arrow, or use loss-scoring score": ("text/csv",),
}
"""What was probably meant by other types."""
_MAX_TYPE_BYTES = 256
_MAX_ACCEPT_BYTES = 1024
"""Browsers send 150."""


@lru_cache(maxsize=256)  # of headers that are bounded themselves
def negotiate(content_type: bytes, encoding: bytes, accept: bytes) -> Formats:
    """Return the formats that three headers ask for.

    Raises:
        UnsupportedMediaError: If the body's type or coding is not supported.
        NotAcceptableError: If Accept allows neither format.
    """
    coding = coding_of(encoding)
    request = _request_format(content_type.decode("latin-1"))
    return Formats(request, _answer_format(accept.decode("latin-1"), request), coding)


def coding_of(encoding: bytes) -> str:
    """Return the coding that Content-Encoding names.

    Raises:
        UnsupportedCodingError: If it is not supported.
    """
    coding = _CODINGS.get(encoding.decode("latin-1").strip().lower())
    if coding is None:
        given = encoding.decode("latin-1")
        raise UnsupportedCodingError(
            f"Content-Encoding {given!r} is not supported; use gzip or zstd, not both, or none"
        )
    return coding


@lru_cache(maxsize=256)
def wants_zstd(accept_encoding: bytes) -> bool:
    """Return whether Accept-Encoding names zstd, and identity not as something better."""
    if len(accept_encoding) > _MAX_ACCEPT_BYTES:
        return False
    qualities: dict[str, float] = {}
    for part in accept_encoding.decode("latin-1").split(","):
        coding, parameters = _parsed(part)
        qualities[coding] = _quality_of(parameters)
    return qualities.get("zstd", 0.0) > 0 and qualities["zstd"] >= qualities.get("identity", 0.0)


def _request_format(content_type: str) -> str:
    if len(content_type) > _MAX_TYPE_BYTES:
        raise UnsupportedMediaError(f"Content-Type is longer than {_MAX_TYPE_BYTES} bytes")
    media_type, parameters = _parsed(content_type)
    charset = parameters.get("charset", "utf-8")
    for name, known in FORMATS.items():
        if media_type == known:
            if name == "json" and charset not in ("utf-8", "utf8"):
                raise UnsupportedMediaError(f"charset {charset!r} is not supported; use UTF-8")
            return name
    known = " or ".join(FORMATS.values())
    if not content_type:
        raise UnsupportedMediaError(f"Content-Type is missing; it must be {known}")
    hint = next((f"; {hint}" for hint, types in _HINTS.items() if media_type in types), "")
    raise UnsupportedMediaError(f"Content-Type must be {known}, not {content_type!r}{hint}")


def _answer_format(accept: str, request: str) -> str:
    if len(accept) > _MAX_ACCEPT_BYTES:
        raise NotAcceptableError(f"Accept is longer than {_MAX_ACCEPT_BYTES} bytes")
    best, best_quality = "", 0.0
    # The request's own format comes first, so that it wins a tie.
    for name in sorted(FORMATS, key=lambda name: name != request):
        quality = _quality(accept or "*/*", FORMATS[name])
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
        media_range, parameters = _parsed(part)
        if ranks.get(media_range, 0) > rank:
            quality = _quality_of(parameters)
            rank = ranks[media_range]
    return quality


def _quality_of(parameters: Mapping[str, str]) -> float:
    try:
        return min(max(float(parameters.get("q", 1)), 0.0), 1.0)
    except ValueError:
        return 0.0


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """Return a media type or range and its parameters, all in lower case."""
    name, *parameters = text.lower().split(";")
    pairs = [parameter.partition("=") for parameter in parameters]
    return name.strip(), {key.strip(): value.strip().strip('"') for key, _, value in pairs}

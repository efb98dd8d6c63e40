"""A body in any format to a request, and scores to an answer in any format.

A common body is read inline, since handing it to a thread costs more than reading it. Any other may
take long, and is read by ``Codec.decode`` in a thread; it reserves memory where it needs it.
"""

from functools import lru_cache
from itertools import groupby
from typing import NamedTuple
from urllib.parse import parse_qsl

from loss_scoring.core import ScoreOptions, Scores, may_be_missing
from loss_scoring.service.codecs import json, tensors
from loss_scoring.service.codecs.arrow import long, plain, read
from loss_scoring.service.codecs.arrow.write import LARGE
from loss_scoring.service.codecs.compression import compress, decompress
from loss_scoring.service.codecs.options import LongColumns, columns_from_query, options_from_query
from loss_scoring.service.codecs.request import Limits, Memory, ScoreRequest
from loss_scoring.service.errors import Faults, InvalidError

INLINE_BYTES = 1 << 16
"""JSON below this is read and written in less time than a thread needs to begin."""
_SEARCHED_INLINE = 1 << 14
"""Elements, all of them missing, among which these are found in 4 ms."""
_ARROW_IS_CHEAPER = 32
"""Times as cheap to read and write as JSON of its size."""
_SHORT_DOCUMENT = 1 << 13
"""Bytes of JSON that describe tensors, or hold a few, and are read in less time."""
_LONGEST_CACHED_QUERY = 1024
_MOST_PARAMETERS = 256
"""Each is a fault or an option, of which there are fewer."""


class Formats(NamedTuple):
    """The formats of a body and of its answer, and the body's coding.

    Attributes:
        request: ``json``, ``arrow`` or ``tensors``.
        answer: The same; ``tensors`` if the request is.
        coding: ``identity``, ``gzip`` or ``zstd``.
        call: What else is said of tensors.
    """

    request: str
    answer: str
    coding: str
    call: tensors.Call | None = None


class Codec:
    """Reads bodies within limits.

    Args:
        max_body_bytes: The most bytes of a body without its content coding.
        max_json_bytes: The same of a JSON body.
        max_elements: The most (prediction, target) pairs.
        batch_elements: A request with more of them is cut, and its gradients are joined again.
    """

    def __init__(
        self, max_body_bytes: int, max_json_bytes: int, max_elements: int, batch_elements: int
    ) -> None:
        self._limits = Limits(max_body_bytes, max_elements)
        self._max_json_bytes = min(max_json_bytes, max_body_bytes)
        self._batch_elements = batch_elements

    def body_limit(self, formats: Formats) -> int:
        """Return the most bytes of a body."""
        is_json = formats.request == "json" or (formats.call and formats.call.json_bytes is None)
        return self._max_json_bytes if is_json else self._limits.bytes

    def decode_common(
        self, body: memoryview, formats: Formats, query: bytes, memory: Memory
    ) -> ScoreRequest | None:
        """Read a request inline; None if it is not a common one, or may take long.

        Raises:
            ServiceError: If it must be refused.
        """
        if formats.coding != "identity":
            return None
        request: ScoreRequest | None
        if formats.request == "json":
            if query or len(body) > INLINE_BYTES:
                return None
            request = json.decode_common(body, self._limits.elements, memory)
        elif formats.call is not None:
            long = len(body) if formats.call.json_bytes is None else formats.call.json_bytes
            if query or long > _SHORT_DOCUMENT or len(body) > _ARROW_IS_CHEAPER * INLINE_BYTES:
                return None
            request = self._decode_tensors(body, formats.call, memory)
        else:
            if len(body) > _ARROW_IS_CHEAPER * INLINE_BYTES or len(query) > _LONGEST_CACHED_QUERY:
                return None
            options, columns = _cached_query(query)
            if columns is not None:
                return None
            request = plain.decode_plain(body, options, self._limits.elements)
        return None if request is None else self._settled(request, formats, memory)

    def decode(
        self, body: memoryview, formats: Formats, query: bytes, memory: Memory
    ) -> ScoreRequest:
        """Read any request; may take long, and be called in any thread.

        Raises:
            UnreadableError: If the body is not what its type says.
            InvalidError: If it breaks the contract.
            TooLargeError: If it is over a limit.
            OverloadedError: If there is no memory left.
        """
        if formats.coding != "identity":
            body = decompress(body, formats.coding, self.body_limit(formats), memory.receive)
        request: ScoreRequest
        if formats.request == "arrow":
            request = self._decode_arrow(body, query, memory)
        else:
            faults = Faults()
            for name, _ in _parameters(query):
                faults.add(f"?{name}", "the options of a JSON request belong in its body")
            faults.check()
            if formats.call is not None:
                request = self._decode_tensors(body, formats.call, memory)
            else:
                request = json.decode(body, max_elements=self._limits.elements, memory=memory)
        return self._settled(request, formats, memory)

    def _decode_tensors(self, body: memoryview, call: tensors.Call, memory: Memory) -> ScoreRequest:
        return tensors.decode(body, call, self._limits, self._max_json_bytes, memory)

    def _decode_arrow(self, body: memoryview, query: bytes, memory: Memory) -> ScoreRequest:
        options, columns = read_query(query)
        if columns is None:
            return read.decode(body, options, self._limits, memory)
        return long.decode(body, options, columns, self._limits, memory)

    def _settled(self, request: ScoreRequest, formats: Formats, memory: Memory) -> ScoreRequest:
        memory.settle(request.estimate(formats.answer, self._batch_elements))
        return request


def is_short(request: ScoreRequest, scores: Scores, format_: str) -> bool:
    """Tell whether an answer is written in less time than a thread needs to begin.

    So is none for which missing elements must be looked for among many.
    """
    cheaper = _ARROW_IS_CHEAPER if format_ == "arrow" else 1
    return request.answer_bytes <= cheaper * INLINE_BYTES and (
        request.prediction.elements <= _SEARCHED_INLINE or not _must_search(request, scores)
    )


def _must_search(request: ScoreRequest, scores: Scores) -> bool:
    return request.options.missing == "error" and may_be_missing(scores)


def encode(
    request: ScoreRequest, scores: Scores, format_: str, memory: Memory | None = None
) -> list[memoryview]:
    """Write an answer, in parts that are not copied where they are large.

    Args:
        request: What was asked.
        scores: Of all its series.
        format_: ``json``, ``arrow`` or ``tensors``.
        memory: Asked between parts whether the request has ended.

    Raises:
        InvalidError: If elements are missing that must not be.
    """
    if _must_search(request, scores):  # as the kernel has seen
        request.check_missing()
    check = _no_check if memory is None else memory.check
    if format_ == "json":
        document = request.document(scores)
        parts = json.write(document, request.prediction.elements, request.answer_bytes, check)
    elif isinstance(request, tensors.TensorRequest):
        parts = tensors.write(request, scores, check)
    else:
        parts = request.stream(scores)
    return parts if len(parts) == 1 else joined(parts)


def encode_compressed(
    request: ScoreRequest, scores: Scores, format_: str, memory: Memory, batch_elements: int
) -> tuple[list[memoryview], bool]:
    """Write an answer and compress it by zstd; tell whether there was memory for that."""
    parts = encode(request, scores, format_, memory)
    compressed = compress(parts, memory, request.estimate(format_, batch_elements))
    return (parts, False) if compressed is None else (compressed, True)


def _no_check() -> None:
    pass


def joined(parts: list[memoryview]) -> list[memoryview]:
    """Return parts with small neighbours joined, as each may become a packet."""
    out: list[memoryview] = []
    for is_large, group in groupby(parts, lambda part: part.nbytes >= LARGE):
        if is_large:
            out += group
        else:
            out.append(memoryview(b"".join(group)))
    return out


def read_query(query: bytes) -> tuple[ScoreOptions, LongColumns | None]:
    """Return the options of an Arrow request, and its columns if it is in the long form.

    Raises:
        InvalidError: If a parameter is unknown, repeated or wrong.
    """
    faults, parameters = Faults(), _parameters(query)
    options = options_from_query(parameters, faults)
    columns = columns_from_query(parameters, faults)
    faults.check()
    return options, columns


_cached_query = lru_cache(maxsize=512)(read_query)


def _parameters(query: bytes) -> list[tuple[str, str]]:
    if query.count(b"&") >= _MOST_PARAMETERS:
        raise InvalidError(f"the query has more than {_MOST_PARAMETERS} parameters")
    return parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)

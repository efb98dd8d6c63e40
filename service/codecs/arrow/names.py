"""What the names of series take in an answer, known before it is built.

A name is as long as its sender chose, and in the answer as often as there are models, so that few
bytes may become very many. JSON writes some characters as two bytes or six.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core.table import is_text
from loss_scoring.service.codecs.arrow.stream import entries_of, text_bytes, text_lengths
from loss_scoring.service.codecs.request import NamesBytes

_KEY = NamesBytes(arrow=16, json=34)
"""A number, date or time: the longest is a time of nanoseconds, in quotes."""
_DECIMAL = NamesBytes(arrow=32, json=96)
_TEXT = NamesBytes(arrow=16, json=3)
"""What a text takes beside its bytes: a view, or quotes and a comma."""
_INDEX_BYTES = 8
_ESCAPES = np.zeros(256, np.uint8)
_ESCAPES[:32] = 5
_ESCAPES[[ord(letter) for letter in '\b\t\n\f\r"\\']] = 1
"""How many bytes more JSON takes for a byte of text."""
_ROWS_AT_ONCE = 1 << 16


def names_bytes(column: pa.ChunkedArray, times: int = 1) -> NamesBytes:
    """Return the most that names take in an answer.

    Args:
        column: One name a series, of a type that can be a key, and validated.
        times: How often each is in the answer.
    """
    rows, entry = len(column), entries_of(column.type)
    is_coded = pa.types.is_dictionary(column.type)
    if is_text(entry):
        each, written, entries = _TEXT, 0, 0
        for chunk in column.chunks:
            lengths, escaped = _lengths(chunk.dictionary if is_coded else chunk)
            entries += int(lengths.sum(dtype=np.int64)) + each.arrow * len(lengths) * is_coded
            for start in range(0, len(chunk) if is_coded else 0, _ROWS_AT_ONCE):
                indices = chunk.indices.slice(start, _ROWS_AT_ONCE).to_numpy()
                written += int(escaped[indices].sum(dtype=np.int64))
            written += 0 if is_coded else int(escaped.sum(dtype=np.int64))
    else:
        each, written = _DECIMAL if pa.types.is_decimal(entry) else _KEY, 0
        entries = entry_bytes(column)
    json = times * (written + each.json * rows)
    if is_coded:  # the dictionary is in the answer once
        return NamesBytes(entries + times * _INDEX_BYTES * rows, json)
    return NamesBytes(times * (entries + each.arrow * rows), json)


def entry_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of all dictionaries of a column, 0 if it has none."""
    if not pa.types.is_dictionary(column.type):
        return 0
    return sum(chunk.dictionary.nbytes for chunk in column.chunks)


def join_bytes(column: pa.ChunkedArray) -> int:
    """Return what a column takes that is joined, or has its texts laid out again, at most."""
    is_coded = pa.types.is_dictionary(column.type)
    if column.num_chunks == 1 and not is_coded and not pa.types.is_string_view(column.type):
        return 0
    return 2 * entry_bytes(column) + text_bytes(column) + 16 * len(column)


def texts_bytes(texts: tuple[str, ...], times: int) -> NamesBytes:
    """Return what texts take in an answer, each so often."""
    written = sum(len(orjson.dumps(text)) + 1 for text in texts)
    plain = sum(len(text.encode()) for text in texts) + _INDEX_BYTES * len(texts)
    return NamesBytes(times * plain, times * written)


def _lengths(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bytes of each text, and those that JSON takes for it without its quotes."""
    lengths = [text_lengths(piece).astype(np.int64) for piece in _pieces(texts)]
    escaped = [_escaped(piece, size) for piece, size in zip(_pieces(texts), lengths, strict=True)]
    none: list[Any] = [np.empty(0, np.int64)]
    return np.concatenate(none + lengths), np.concatenate(none + escaped)


def _pieces(texts: pa.Array) -> Iterator[pa.Array]:
    return (texts.slice(i, _ROWS_AT_ONCE) for i in range(0, len(texts), _ROWS_AT_ONCE))


def _escaped(texts: pa.Array, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    if not pa.types.is_large_string(texts.type):
        texts = texts.cast(pa.large_string())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    start, stop = offsets[[0, -1]].tolist()
    extra = _ESCAPES[np.frombuffer(data or b"", np.uint8)[start:stop]]
    if not extra.any():
        return lengths
    extra = np.append(extra, np.uint8(0))  # where texts at the end start that are empty
    more = np.add.reduceat(extra, offsets[:-1] - start, dtype=np.int64)  # a byte's, of an empty one
    return lengths + np.where(offsets[1:] > offsets[:-1], more, 0)

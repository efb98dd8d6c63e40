"""Reads thousands of damaged streams; run on its own, as a crash must not take the tests along."""

import functools
import json
import random
import resource
import sys

import pyarrow as pa
from streams import Account, answers, pair, read, write

from loss_scoring.core import ScoreOptions
from loss_scoring.service.codecs.arrow import long
from loss_scoring.service.codecs.options import LongColumns
from loss_scoring.service.codecs.request import Limits, ScoreRequest
from loss_scoring.service.errors import ServiceError

SKIP = ScoreOptions(gradients=True, missing="skip")


COLUMNS = LongColumns(group_columns="id,cutoff")


def read_either(body: bytes, number: int) -> ScoreRequest:
    """Read a stream in the form of the original of this number."""
    if number < len(originals()) - len(in_long_form()):
        return read(body, SKIP)
    return long.decode(memoryview(body), SKIP, COLUMNS, Limits(1 << 24, 1 << 20), Account())


@functools.cache
def in_long_form() -> list[bytes]:
    text = pa.array(["a", "b", "a longer name than fits in a view", "a"])
    when = pa.array([1, 1, 2, 1], pa.timestamp("s", "UTC"))
    numbers = {"y": pa.array([1.0, None, 3.0, 4.0]), "A": pa.array([1.0, 2.0, 3.0, 4.0])}
    rest = {"cutoff": when, **numbers, "B": pa.array([0, 1, 2, 3], pa.int8())}
    return [
        write(pa.table({"id": text, **rest})),
        write(pa.table({"id": text.dictionary_encode(), **rest})),
        write(pa.table({"id": text.cast(pa.string_view()), **rest}), compression="zstd"),
    ]


@functools.cache
def originals() -> list[bytes]:
    lists = pa.array([[1.0, 2.0], [3.0], [4.0, None, 6.0]], pa.list_(pa.float64()))
    rows = pa.array([[[1, 2]], [[3, 4], [5, 6]]], pa.large_list(pa.list_(pa.float32(), 2)))
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    text = pa.array(["a", "b", "a longer name than fits in a view"])
    whole = pair(lists, id=text.dictionary_encode())
    return [
        write(pair(lists, id=text)),
        write(whole),
        write(whole, compression="zstd"),
        write(pair(lists, id=text.cast(pa.string_view())), compression="lz4"),
        write(pair(rows, id=pa.array([1, 2]))),
        write(pa.concat_tables([pair(fixed), pair(fixed)])),
        *in_long_form(),
    ]


def main(count: int) -> None:
    chance = random.Random(20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"valid": 0}
    bodies = originals()
    for i, body in enumerate(bodies):
        answers(read_either(body, i))
    for i in range(count):
        body = bytearray(bodies[i % len(bodies)])
        place = chance.randrange(len(body))
        body[place] = chance.choice((0, 1, 127, 128, 255, body[place] ^ 1 << chance.randrange(8)))
        try:
            answers(read_either(bytes(body), i % len(bodies)))
            outcomes["valid"] += 1
        except ServiceError as error:
            outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
        except BaseException:
            sys.stderr.write(f"mutation {i}: byte {place} becomes {body[place]}\n")
            raise
    outcomes["grown_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    outcomes["arrow_bytes"] = pa.default_memory_pool().max_memory()
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Damaged bodies without end, the same ones in every run."""

import random
from collections.abc import Iterator, Sequence

EXTREMES = (
    0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**40, 2**20, 7, 8, 9,
)  # fmt: skip


def flip(body: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)


def extreme(body: bytearray, rng: random.Random) -> None:
    """An extreme number where there may be a length, an offset, a count or a type."""
    size = rng.choice((1, 2, 4, 8))
    place = rng.randrange(max(len(body) - size, 1))
    place -= place % size if rng.random() < 0.8 else 0
    body[place : place + size] = (rng.choice(EXTREMES) % (1 << 8 * size)).to_bytes(size, "little")


def truncate(body: bytearray, rng: random.Random) -> None:
    del body[rng.randrange(len(body)) :]


def drop(body: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(body))
    del body[start : start + rng.choice((1, 4, 8, 64))]


def repeat(body: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(body))
    piece = body[start : start + rng.choice((1, 8, 64, 256))]
    body[start:start] = piece * rng.choice((1, 2, 50))


def mutants(
    originals: Sequence[bytes], count: int, seed: int, more: Sequence = ()
) -> Iterator[bytes]:
    """Yield damaged bodies: one to three wounds each, or parts of two originals."""
    rng = random.Random(seed)
    wounds = [flip, flip, extreme, extreme, truncate, drop, repeat, *more]
    for n in range(count):
        original = originals[n % len(originals)]
        if rng.random() < 0.1:
            other = rng.choice(originals)
            yield original[: rng.randrange(len(original))] + other[rng.randrange(len(other)) :]
            continue
        body = bytearray(original)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if body:
                rng.choice(wounds)(body, rng)
        yield bytes(body)

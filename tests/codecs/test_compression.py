"""Bodies with a Content-Encoding: whole ones come out, others are refused before memory is spent."""

import gzip
import time
from pathlib import Path

import pyarrow as pa
import pytest

from loss_scoring.service.codecs import compression
from loss_scoring.service.errors import OverloadedError, TooLargeError, UnreadableError

MEBI = 1 << 20
TEXT = b'{"series": [{"prediction": [1.5], "target": [2.5]}]}' * 50


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESS = {"gzip": gzip.compress, "zstd": zstd}


@pytest.fixture(params=COMPRESS)
def coding(request):
    return request.param


@pytest.fixture
def compress(coding):
    return COMPRESS[coding]


def decompress(body: bytes, coding: str, limit: int = MEBI) -> bytes:
    reserved = []
    found = bytes(compression.decompress(memoryview(body), coding, limit, reserved.append))
    assert len(found) <= sum(reserved) <= limit
    return found


def test_one_member_or_several(coding, compress):
    assert decompress(compress(TEXT), coding) == TEXT
    several = compress(TEXT) + compress(b"") + compress(b"tail")
    assert decompress(several, coding) == TEXT + b"tail"
    assert decompress(compress(b""), coding) == b""


def test_a_skippable_frame_of_zstd_is_skipped():
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert decompress(skippable + zstd(TEXT) + skippable, "zstd") == TEXT


def test_memory_is_reserved_in_steps_before_it_is_taken(coding):
    reserved = []

    def reserve(size):
        reserved.append(size)
        if sum(reserved) > MEBI:
            raise OverloadedError("full", reason="memory-full")

    with pytest.raises(OverloadedError):
        compression.decompress(memoryview(gigabyte_of_zeros(coding)), coding, 32 * MEBI, reserve)
    assert reserved[0] < MEBI
    assert all(step <= sum(reserved[:i]) for i, step in enumerate(reserved) if i)


def test_the_limit_is_exact(coding, compress):
    assert decompress(compress(TEXT), coding, len(TEXT)) == TEXT
    with pytest.raises(TooLargeError, match=str(len(TEXT) - 1)):
        decompress(compress(TEXT), coding, len(TEXT) - 1)


def test_every_truncation_is_refused(coding, compress):
    whole = compress(TEXT)
    for end in range(1, len(whole)):
        with pytest.raises(UnreadableError, match=coding):
            decompress(whole[:end], coding)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 64, b"tail", TEXT])
def test_what_follows_is_refused(coding, compress, tail):
    with pytest.raises(UnreadableError):
        decompress(compress(TEXT) + tail, coding)


def test_damage_is_found_by_the_checksum_of_gzip():
    whole = gzip.compress(TEXT)
    for place in range(10, len(whole)):  # the bytes before hold a time and a system
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        with pytest.raises(UnreadableError):
            decompress(bytes(damaged), "gzip")


def test_the_other_coding_or_none_is_refused(coding):
    (other,) = set(COMPRESS) - {coding}
    for body in (COMPRESS[other](TEXT), TEXT):
        with pytest.raises(UnreadableError):
            decompress(body, coding)


def gigabyte_of_zeros(coding: str) -> bytes:
    """Make 64 members or frames of 16 MiB each."""
    return COMPRESS[coding](bytes(16 * MEBI)) * 64


def wide_window(_: str) -> bytes:
    """Make a frame that asks for a window of 128 MiB and repeats one byte for 1 GiB."""
    block = (1 | (1 << 1) | ((128 << 10) << 3)).to_bytes(3, "little") + b"x"
    first = (0 | (1 << 1) | ((128 << 10) << 3)).to_bytes(3, "little") + b"x"
    return b"\x28\xb5\x2f\xfd\x00" + bytes([17 << 3]) + first * 8191 + block


def memory(name: str) -> int:
    """Return kibibytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("bomb", "coding"),
    [(gigabyte_of_zeros, "gzip"), (gigabyte_of_zeros, "zstd"), (wide_window, "zstd")],
)
def test_a_bomb_costs_no_more_than_the_limit(bomb, coding):
    body = bomb(coding)
    assert len(body) < 2 * MEBI
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = memory("VmHWM")
    started = time.process_time()
    with pytest.raises(TooLargeError):
        decompress(body, coding, 32 * MEBI)
    assert time.process_time() - started < 10
    risen = (memory("VmHWM") - before) / 1024
    assert risen < 100  # the limit, as much again for a window of zstd, and some room

"""Want of memory or threads is the server's: 503 to retry, whoever meets it and however it is worded."""

import asyncio

import httpx
import pyarrow as pa
import pytest
from test_errors import GOOD, problem

from loss_scoring.service.api import score
from loss_scoring.service.api.start import Start
from loss_scoring.service.app import create_app
from loss_scoring.service.codecs.codec import Codec
from loss_scoring.service.errors import InvalidError, UnreadableError, refusal_of
from loss_scoring.service.settings import Settings

ERRORS = [
    MemoryError(),
    pa.ArrowMemoryError("malloc of size 64 failed"),
    OSError(12, "Cannot allocate memory"),
    OSError(28, "No space left on device"),
    OSError("ZSTD decompression failed: Allocation error : not enough memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_want_of_memory_is_no_fault_of_the_body(error):
    blamed = UnreadableError("the body is not whole")
    blamed.__cause__ = error
    for failed in (error, blamed):
        assert refusal_of(failed).reason == "exhausted"
        assert refusal_of(failed).retryable


def test_other_errors_are_what_they_are():
    fault = InvalidError("a column named out of memory")
    assert refusal_of(fault) is fault
    assert refusal_of(ValueError("out of memory, says the client")) is None


@pytest.mark.parametrize("stage", ["receive_body", "decode_common", "decode", "encode", "_send"])
def test_a_shortage_in_any_stage_is_503_and_passes(stage, monkeypatch):
    start = Start()
    start.done = True
    app = create_app(Settings(inline_elements=4096), start=start)
    transport = httpx.ASGITransport(app)

    def fail(*_):
        raise MemoryError

    async def main():
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            with monkeypatch.context() as patch:
                if stage == "decode":
                    patch.setattr(Codec, "decode_common", lambda *_: None)
                patch.setattr(Codec if "decode" in stage else score, stage, fail)
                refused = await client.post("/score", json=GOOD)
            assert problem(refused, 503)["retryable"]
            assert int(refused.headers["retry-after"]) > 0

    asyncio.run(main())

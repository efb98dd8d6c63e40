"""The least that a small request can cost on uvicorn: what bench/small.py measures against.

/score does the work and nothing else: no limits, no options but gradients, no errors, no metrics,
no threads. Any other path reads the body and answers nothing.

uvicorn bare:app
"""

import gc

import numpy as np
import pyarrow as pa
import torch
from starlette.types import Receive, Scope, Send

from loss_scoring.core import Scores, kernel_for, warm_up
from loss_scoring.core.options import ScoreOptions
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.codec import encode

JSON, ARROW = b"application/json", b"application/vnd.apache.arrow.stream"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
CPU = torch.device("cpu")
OPTIONS = {gradients: ScoreOptions(gradients=gradients) for gradients in (False, True)}
kernel = kernel_for(CPU)


def score_json(body: bytes) -> list[memoryview]:
    """Score with the service's own reader, kernel and writer."""
    request = json.decode(body, max_elements=len(body))
    p, y = request.prediction, request.target
    return encode(request, kernel(p.array, y.array, p.offsets, request.options), "json")


def score_arrow(body: bytes, options: ScoreOptions) -> bytes:
    """Score doubles with what pyarrow offers to read and to write."""
    with pa.ipc.open_stream(body) as reader:
        table = reader.read_all()
    table.validate(full=True)
    prediction, target = (table.column(side).chunk(0) for side in ("prediction", "target"))
    offsets = prediction.offsets
    cuts = offsets.to_numpy().astype(np.int64)
    scores = kernel(
        torch.from_dlpack(prediction.values),
        torch.from_dlpack(target.values),
        torch.from_numpy(cuts),
        options,
    )
    batch = answer(scores, offsets, cuts)
    return b"".join((batch.schema.serialize(), batch.serialize(), END_OF_STREAM))


def answer(scores: Scores, offsets: pa.Array, cuts: np.ndarray) -> pa.RecordBatch:
    values, masked, gradients = scores.arrays()
    columns = {"id": pa.array(np.arange(len(cuts) - 1)), "length": pa.array(np.diff(cuts))}
    columns |= {name: pa.array(column) for name, column in values.items()}
    columns |= {f"{name}_masked": pa.array(column) for name, column in masked.items()}
    columns |= {
        f"{name}_gradient": pa.ListArray.from_arrays(offsets, pa.array(column))
        for name, column in gradients.items()
    }
    return pa.record_batch(columns)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    type_, parts = ARROW, [b""]
    if scope["path"] == "/score" and (b"content-type", ARROW) in scope["headers"]:
        parts = [score_arrow(body, OPTIONS[b"gradients=true" in scope["query_string"]])]
    elif scope["path"] == "/score":
        type_, parts = JSON, score_json(body)
    headers = [(b"content-type", type_), (b"content-length", b"%d" % sum(map(len, parts)))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for left, part in zip(range(len(parts))[::-1], parts, strict=True):
        await send({"type": "http.response.body", "body": part, "more_body": left > 0})


warm_up(CPU)
json.warm_up()
gc.collect()
gc.freeze()  # as the service does

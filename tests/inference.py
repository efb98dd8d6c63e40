"""Requests and answers of the Open Inference Protocol, as a client makes and reads them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import httpx
import numpy as np

DATATYPES = {
    **{np.dtype(f"f{bits // 8}"): f"FP{bits}" for bits in (16, 32, 64)},
    **{np.dtype(f"i{bits // 8}"): f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{np.dtype(f"u{bits // 8}"): f"UINT{bits}" for bits in (8, 16, 32, 64)},
}
DTYPES = {name: dtype for dtype, name in DATATYPES.items()}
LENGTH = "Inference-Header-Content-Length"


def body_of(
    tensors: Mapping[str, np.ndarray],
    binary: Collection[str] = (),
    *,
    nested: bool = False,
    **fields: Any,
) -> tuple[bytes, dict[str, str]]:
    """Return a body and its headers; tensors that are named in ``binary`` go behind the document."""
    inputs, behind = [], b""
    for name, values in tensors.items():
        entry = {"name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype]}
        if name in binary:
            behind += values.tobytes()
            inputs.append({**entry, "parameters": {"binary_data_size": values.nbytes}})
        else:
            data = values if nested else values.reshape(-1)
            inputs.append({**entry, "data": _nulled(data.tolist())})
    document = json.dumps({"inputs": inputs, **fields}).encode()
    return document + behind, {LENGTH: str(len(document))} if binary else {}


def _nulled(data: Any) -> Any:
    if isinstance(data, list):
        return [_nulled(entry) for entry in data]
    return None if np.isnan(data) else data


def columns_of(content: bytes, headers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the outputs of an answer by name; null is NaN."""
    length = int(headers.get(LENGTH, len(content)))
    columns, start = {}, length
    for output in json.loads(content[:length])["outputs"]:
        dtype, shape = DTYPES[output["datatype"]], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], dtype)
        else:
            values = np.frombuffer(content[start : start + size], dtype)
            start += size
        columns[output["name"]] = values.reshape(shape)
    assert start == len(content)
    return columns


def infer(
    client: httpx.Client,
    loss: str,
    *args: Any,
    headers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> dict[str, np.ndarray]:
    content, own = body_of(*args, **kwargs)
    answer = client.post(
        f"/v2/models/{loss}/infer", content=content, headers={**own, **(headers or {})}
    )
    assert answer.status_code == 200, answer.text
    assert (LENGTH in answer.headers) == (
        answer.headers["content-type"] == "application/octet-stream"
    )
    return columns_of(answer.content, answer.headers)

"""Answers in tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from loss_scoring.core import Scores
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.tensors.request import VERSION, TensorRequest

_DATATYPES = {
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.int64): "INT64",
}


def write(request: TensorRequest, scores: Scores, check: Callable[[], None]) -> list[memoryview]:
    """Write an answer: a document, and behind it the outputs that are asked for in binary.

    Args:
        request: Learns how long the document is, if there is something behind it.
        scores: Of its loss.
        check: Called between parts of the document; may raise.
    """
    ((loss, values),), masked, gradients = (list(part.items()) for part in scores.arrays())
    columns = {"loss": values, "masked": np.zeros(len(values), np.int64)}
    if masked:
        columns["masked"] = masked[0][1]
    if gradients:
        columns["gradient"] = gradients[0][1].reshape(request.shape)
    outputs: list[dict[str, Any]] = []
    binary: list[memoryview] = []
    elements = 0
    for name, is_binary in request.outputs.items():
        column = columns[name]
        output = {"name": name, "datatype": _DATATYPES[column.dtype], "shape": list(column.shape)}
        flat = column.reshape(-1)
        if is_binary:
            binary.append(flat.view(np.uint8).data)
            outputs.append({**output, "parameters": {"binary_data_size": flat.nbytes}})
        else:
            elements = max(elements, flat.size)
            outputs.append({**output, "data": flat})
    document: dict[str, Any] = {"model_name": loss, "model_version": VERSION, "outputs": outputs}
    if request.name is not None:
        document["id"] = request.name
    parts = json.write(document, elements, check=check)
    if binary:
        request.json_bytes = sum(map(len, parts))
    return parts + binary

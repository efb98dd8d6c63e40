"""The Open Inference Protocol, version 2: requests of tensors, and scores to tensors.

A model is a loss. A body is a document in JSON; the numbers of a tensor are in it or, by the
extension for binary tensors, behind it, where a header says how long the document is.
"""

from loss_scoring.service.codecs.tensors.read import decode
from loss_scoring.service.codecs.tensors.request import OUTPUTS, VERSION, Call, TensorRequest
from loss_scoring.service.codecs.tensors.write import write

__all__ = ["OUTPUTS", "VERSION", "Call", "TensorRequest", "decode", "write"]

"""A request of tensors, once decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from loss_scoring.service.codecs.request import MISSING, Headers, ListRequest, position

VERSION = "1"
"""Of every model."""
OUTPUTS = {"loss": "FP64", "masked": "INT64", "gradient": "FP64"}
"""Those of every model, with their types; a gradient is FP32 where it is computed in that."""


class Call(NamedTuple):
    """What is said of a request outside of its body: the loss, and how much of the body is JSON.

    Without a number all of it is.
    """

    loss: str
    json_bytes: int | None


@dataclass(slots=True, eq=False, kw_only=True)
class TensorRequest(ListRequest):
    """A request of tensors, for one loss.

    Attributes:
        name: What the client calls the request, if it does.
        shape: Of the prediction, and so of the gradient.
        outputs: Those that are asked for, in order, and whether each is binary.
        json_bytes: Of the answer, once it is written; None if all of it is JSON.
    """

    name: str | None
    shape: tuple[int, ...]
    outputs: Mapping[str, bool]
    json_bytes: int | None = field(init=False, default=None)

    @property
    def answer_headers(self) -> Headers:
        if self.json_bytes is None:
            return [(b"content-type", b"application/json")]
        return [
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", b"%d" % self.json_bytes),
        ]

    def estimate(self, format_: str, batch_elements: int) -> int:
        format_ = "arrow" if all(self.outputs.values()) else "json"  # as many bytes, at most
        return ListRequest.estimate(self, format_, batch_elements)  # with slots super() fails

    def _missing(self, series: int, is_target: int, element: int) -> tuple[str, str]:
        channels = 0 if self.channels is None else int(self.channels[series])
        side = "target" if is_target else "prediction"
        return f"/{side}/{series}/{position(channels, element)}", f"of series {series} {MISSING}"

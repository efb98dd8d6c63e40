"""What a request and its answer are going to take, estimated before they take it."""

from loss_scoring.service.codecs.request import ScoreRequest


def encoded_bytes(request: ScoreRequest, format_: str) -> int:
    """Estimate the size of the answer."""
    gradients = len(request.options.losses) if request.options.gradients else 0
    element = 20 if format_ == "json" else request.prediction.dtype.itemsize
    keys = 0 if request.long is None else request.long.key_bytes
    return keys + 64 * len(request) + element * request.elements * gradients


def added_bytes(
    request: ScoreRequest, encoded: int, *, is_json: bool, answers_json: bool, is_cut: bool
) -> int:
    """Estimate what a request takes beside its body.

    Floats of Arrow are read in place, other numbers are copied. Gradients are written in place;
    text is kept beside the numbers, and gradients of a request that was cut are kept in parts and
    joined. Of the long form numbers and gradients are laid out again, unless their order is
    right already.
    """
    side = request.elements * request.prediction.dtype.itemsize
    gradients = side * len(request.options.losses) if request.options.gradients else 0
    is_laid_out = request.long is not None and request.copied and not answers_json
    again = answers_json + is_cut + is_laid_out
    return encoded + 2 * side * (is_json or request.copied) + gradients * again

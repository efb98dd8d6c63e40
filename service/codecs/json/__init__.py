"""JSON bodies to requests, and scores to JSON."""

from loss_scoring.service.codecs.json.read import decode, decode_common, warm_up
from loss_scoring.service.codecs.json.write import write

MEDIA_TYPE = "application/json"

__all__ = ["MEDIA_TYPE", "decode", "decode_common", "warm_up", "write"]

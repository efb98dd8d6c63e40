"""Batches concurrent requests onto one device worker."""

from service.engine.engine import Engine
from service.engine.policy import BatchPolicy, Span
from service.engine.scorer import Answer, Limits, Scorer

__all__ = ["Answer", "BatchPolicy", "Engine", "Limits", "Scorer", "Span"]

"""Batches concurrent requests onto one device worker."""

from service.engine.engine import Answer, Engine, Limits
from service.engine.policy import BatchPolicy, Span

__all__ = ["Answer", "BatchPolicy", "Engine", "Limits", "Span"]

"""Batches concurrent requests onto one device worker."""

from loss_scoring.service.engine.engine import Engine
from loss_scoring.service.engine.policy import BatchPolicy, Span
from loss_scoring.service.engine.scorer import Answer, Limits, ScoringEngine, Slice

__all__ = ["Answer", "BatchPolicy", "Engine", "Limits", "ScoringEngine", "Slice", "Span"]

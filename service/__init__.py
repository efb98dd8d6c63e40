"""The loss-scoring service: HTTP in front, one device behind, batches between."""

from importlib.metadata import version

__version__ = version("loss-scoring")

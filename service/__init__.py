"""The loss-scoring service: HTTP in front, one device behind, batches between."""

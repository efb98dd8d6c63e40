"""The command line ``loss-scoring``."""

"""The loss-scoring service: HTTP in front, one device behind, batches between."""


def __getattr__(name: str) -> str:
    """Return the version, which takes as long to find as all of a command's flags."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version("loss-scoring")

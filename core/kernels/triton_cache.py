"""Triton's cache on a read-only file system: what an image brings, and what it lacks beside it.

Triton writes where it reads, so the kernels in an image cannot be its cache as they are. With

    TRITON_CACHE_MANAGER=core.kernels.triton_cache:SeededCache
    TRITON_SEED_DIR=/opt/triton     what the image brings
    TRITON_CACHE_DIR=/tmp/triton    what it lacks, say the kernels of a newer GPU

a start compiles nothing that the seed has, and needs a compiler for nothing.
"""

import os
from pathlib import Path
from typing import Any

from triton.runtime.cache import CacheManager, FileCacheManager


class SeededCache(CacheManager):  # type: ignore[misc]
    """Looks into the folder ``TRITON_SEED_DIR`` after its own, and never writes there.

    Raises:
        KeyError: The variable is not set.
    """

    def __init__(self, key: str, *options: Any, **named: Any) -> None:
        self._own = FileCacheManager(key, *options, **named)
        self._seed = FileCacheManager.__new__(FileCacheManager)  # its __init__ makes the folder
        self._seed.cache_dir = str(Path(os.environ["TRITON_SEED_DIR"], key))

    def get_file(self, filename: str) -> str | None:
        """Return the path of a file, if either folder has it."""
        found: str | None = self._own.get_file(filename) or self._seed.get_file(filename)
        return found

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Return the paths of the files that were written together, if either folder has them."""
        found: dict[str, str] | None = self._own.get_group(filename)
        return found or self._seed.get_group(filename)

    def put(self, data: bytes | str, filename: str, binary: bool = True) -> str:  # noqa: FBT001, FBT002 - Triton's
        """Write a file beside the seed; returns its path."""
        written: str = self._own.put(data, filename, binary)
        return written

    def put_group(self, filename: str, group: dict[str, str]) -> str:
        """Note beside the seed which files belong together."""
        written: str = self._own.put_group(filename, group)
        return written

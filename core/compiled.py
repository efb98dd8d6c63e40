"""How loops become machine code, those of the kernels and those that read JSON: by numba.

This file leans on what numba keeps private: the option ``_nrt``, the flag ``noalias``, the
attribute ``_cache`` of a compiled function, the files of a cache, the lock of the compiler, and how
an array lies in LLVM's values.
Tested with numba 0.62 and 0.68, and by ``tests/core/test_compiled.py`` and
``tests/test_private_names.py`` with the installed one.
"""

import errno
import os
import pickle
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, InTreeCacheLocator
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock

# No loop allocates, so none needs numba's runtime (NRT), which counts references to each array that
# is passed to an inlined function. That was 80 % of the time of the loop that reads JSON: an early
# return keeps numba from pruning a pair of counts, and each is a locked addition.
_FAST: Any = {"nogil": True, "error_model": "numpy", "_nrt": False}
_CHECKSUM_BYTES = 4
_NO_CACHE = "numba cannot cache on disk, so each start compiles"

if hasattr(os, "register_at_fork"):
    # A fork waits for the compiler: a child would find its lock held, and LLVM half-way.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


_P = ParamSpec("_P")
_T = TypeVar("_T")
_EXHAUSTED = errno.EMFILE, errno.ENFILE
_spare = [os.open(os.devnull, os.O_RDONLY)]
_spare_lock = threading.Lock()


def with_spare_descriptor(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return work that opens a file, and can where connections have taken all descriptors."""

    @wraps(work)
    def worked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return work(*args, **kwargs)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        with _spare_lock:
            if _spare:
                os.close(_spare.pop())
            try:
                return work(*args, **kwargs)
            finally:
                with suppress(OSError):  # a connection may have been faster
                    _spare.append(os.open(os.devnull, os.O_RDONLY))

    return worked


def compiled(function: Callable[..., Any], sources: Iterable[Path] = (), **options: Any) -> Any:
    """Return a function that compiles itself at its first call, and caches the result on disk.

    It warns where nothing can be written, as each start compiles then.

    Args:
        function: What to compile.
        sources: The files of all that becomes a part of it; numba itself looks only at the file of
            the function, and would go on with old code when another changes.
        options: Of ``numba.njit``.
    """
    texts = [path.read_bytes() for path in (Path(__file__), *sources)]
    function.__qualname__ += f"_{zlib.crc32(b''.join(texts)):x}"  # part of the name of the file
    loop = njit(**_FAST, **options)(function)
    try:
        # What ``cache=True`` does with numba's own.
        loop._cache = _Cache(function)  # noqa: SLF001
    except RuntimeError as error:  # no folder for it
        warnings.warn(f"{_NO_CACHE}: {error}", stacklevel=2)
    return loop


def is_cached(loop: Any) -> bool:
    """Tell whether there is a file of the machine code of a compiled function."""
    cache = loop._cache  # noqa: SLF001
    return isinstance(cache, _Cache) and Path(cache._cache_file._index_path).exists()  # noqa: SLF001


def inlined(function: Callable[..., Any], **options: Any) -> Any:
    """Return a function that becomes a part of each compiled one that calls it."""
    return njit(forceinline=True, **_FAST, **options)(function)


class Restrict(CompilerBase):
    """The usual compiler, with C's ``restrict`` on every array argument: a ``pipeline_class``."""

    def define_pipelines(self) -> list[Any]:
        """Set the flag and return numba's own pipeline."""
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]  # type: ignore[no-untyped-call]


def element_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return where an element of an array lies, for an intrinsic ``(array, index)``.

    The index is not checked, and counts from the start even if it is negative.
    """
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


class _Files(IndexDataCacheFile):
    """The files of a cache; each of machine code ends with a checksum.

    LLVM ends the process, or runs what there is, where a file that it is given is damaged.
    """

    def _save_data(self, name: str, data: Any) -> None:
        dumped = self._dump(data)  # type: ignore[no-untyped-call]
        with self._open_for_write(self._data_path(name)) as file:  # type: ignore[no-untyped-call]
            file.write(dumped + _checksum(dumped))

    def _load_data(self, name: str) -> Any:
        path = self._data_path(name)  # type: ignore[no-untyped-call]
        whole = Path(path).read_bytes()
        dumped, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
        if checksum != _checksum(dumped):
            raise ValueError(f"{path} is damaged")
        return pickle.loads(dumped)  # noqa: S301 - as numba does, who wrote it may run code anyway


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")


class _Cache(FunctionCache):
    """A cache that warns where it cannot be read or written; numba's own fails the call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = _Files(  # type: ignore[no-untyped-call]
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a damaged file leads to
            if isinstance(error, OSError) and error.errno in _EXHAUSTED:
                raise  # the file is whole
            index = self._cache_file._index_path  # noqa: SLF001
            warnings.warn(
                f"compiling again, as the cache {index} cannot be read: {error!r}", stacklevel=2
            )
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Leave out what the function encloses: the name of the file has a checksum of its sources.

        numba would pickle it, and inlined functions pickle differently in each process.
        """
        return sig, codegen.magic_tuple(), self._py_func.__code__.co_code

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - read-only, full, or damaged and read-only
            # One text for all functions, so that it is shown once.
            reason = getattr(error, "strerror", None) or repr(error)
            warnings.warn(f"{_NO_CACHE}: {reason}", stacklevel=2)


class PackagedCache(InTreeCacheLocator):
    """The cache beside the sources, where nothing can be written: in an image.

    numba itself passes over a folder that is read-only, and would compile at each start what the
    image brings. Name this class in the variable ``NUMBA_CACHE_LOCATOR_CLASSES``.
    """

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self:
        """Return where the code of a function lies."""
        return cls(py_func, py_file)

"""Where files are: on this machine, at an address, at standard input and output.

Addresses (``s3://``, ``gs://``, ``az://``, ``https://`` and what else fsspec knows) need the extra
``remote``; its libraries find keys and endpoints in the environment and in their files.
"""

import mmap
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOENT
from functools import cache, partial
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Self
from urllib.parse import urlsplit

import pyarrow as pa

from loss_scoring.service.errors import ServiceError, UnreadableError, UsageError

STANDARD = "-"
"""Standard input, or standard output."""
_ARROW = (".arrow", ".feather", ".ipc", ".arrows")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_ADDRESS = re.compile(r"\w[\w+]+://")
_CHUNK_BYTES = 1 << 20
_EXTRA = "pip install 'loss-scoring[remote]'"


@dataclass(frozen=True)
class File:
    """A file to read.

    Attributes:
        label: What messages call it: as the user does, but without passwords and signatures.
        name: Its name, by which its format is known.
        open: Opens it at its start.
    """

    label: str
    name: str
    open: Callable[[], pa.NativeFile]

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.label

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return a file of this machine, which need not be there."""
        # Arrow's own formats are used as they lie; of others, what is mapped would stay in memory.
        arrow = ending_of(path.name) in _ARROW
        return cls(str(path), path.name, partial(pa.memory_map if arrow else pa.OSFile, str(path)))

    @property
    def ending(self) -> str:
        """The ending in lower case; of compressed CSV, that of what is inside."""
        return ending_of(self.name)

    def stream(self) -> pa.NativeFile:
        """Open it to be read from start to end, decompressed."""
        compression = _COMPRESSIONS.get(Path(self.name.lower()).suffix)
        file = self.open()
        return file if compression is None else pa.CompressedInputStream(file, compression)


class Found(NamedTuple):
    """A file, and where it is below the folder that was named, or below the first of all."""

    file: File
    path: PurePosixPath


def ending_of(name: str) -> str:
    """Return the ending of a name in lower case; of compressed CSV, that of what is inside.

    Example:
        >>> ending_of("A.Parquet"), ending_of("a.csv.gz"), ending_of("a.arrow.gz")
        ('.parquet', '.csv', '.gz')
    """
    path = Path(name.lower())
    is_csv = path.suffix in _COMPRESSIONS and path.stem.endswith(".csv")
    return ".csv" if is_csv else path.suffix


def is_web(given: str) -> bool:
    """Tell whether it is an address of the web, where files are but no folders."""
    return given.lower().startswith(("http://", "https://"))


def is_address(given: str) -> bool:
    """Tell whether it is an address such as ``s3://bucket/file``."""
    return _ADDRESS.match(given) is not None


@cache
def standard_input() -> File:
    """Return what is at standard input, which is read once, into a temporary file.

    Raises:
        UsageError: If it is a terminal.
        UnreadableError: If it is empty.
    """
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal; - takes an Arrow stream from a pipe")
    copy = _copied(lambda file: shutil.copyfileobj(sys.stdin.buffer, file, _CHUNK_BYTES))
    if not len(copy):
        raise UnreadableError("standard input is empty; - takes an Arrow stream")
    return File("standard input", "-.arrows", lambda: pa.BufferReader(copy))


def find_remote(address: str, is_data: Callable[[PurePosixPath], bool]) -> list[Found]:
    """Return the files of an address, a pattern of addresses or a folder, in the order of names.

    Args:
        address: Of the web always one file, as there are no folders.
        is_data: Tells of a path below a folder whether that file holds rows.

    Raises:
        UsageError: If a library is absent, or none knows the address.
        UnreadableError: If it cannot be read.
    """
    system, path, label = _file_system(address)
    if is_web(address):
        return [Found(_downloaded(system, address, label), PurePosixPath(urlsplit(address).path))]
    found: list[Found] = []
    with _named(label):
        is_pattern = has_magic(path) and not system.exists(path)
        for name in sorted(system.glob(path)) if is_pattern else [path]:
            if not system.isdir(name):
                named = system.unstrip_protocol(name) if is_pattern else label
                found.append(Found(_remote(system, name, named), PurePosixPath(name)))
                continue
            for inside in sorted(system.find(name)):
                below = PurePosixPath(inside).relative_to(name)
                if is_data(below):
                    path_ = PurePosixPath(inside) if is_pattern else below
                    file = _remote(system, inside, system.unstrip_protocol(inside))
                    found.append(Found(file, path_))
    return found


def upload(source: Path, address: str) -> None:
    """Copy a file of this machine to an address.

    Raises:
        UsageError: If a library is absent, or none knows the address.
        UnreadableError: If it cannot be written.
    """
    system, path, label = _file_system(address)
    with _named(label):
        system.put_file(str(source), path)


def label_of(address: str) -> str:
    """Return what messages call an address: without a password, or a query that may be a signature.

    Example:
        >>> label_of("https://me:secret@example.org/f.parquet?signature=s"), label_of("s3://b/f*")
        ('https://example.org/f.parquet', 's3://b/f*')
    """
    if address == STANDARD:
        return "standard input"
    if "://" not in address:
        return address
    parts = urlsplit(address)
    if not is_web(address) and "@" not in parts.netloc:
        return address
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _file_system(address: str) -> tuple[Any, str, str]:
    """Return fsspec's file system of an address, the path in it, and what messages call it."""
    from fsspec.core import url_to_fs

    label = label_of(address)
    try:
        options = {"client_kwargs": _session_options()} if is_web(address) else {}
        system, path = url_to_fs(address, **options)
    except ImportError as error:
        raise UsageError(f"{label}: {error}; or all that addresses need: {_EXTRA}") from error
    except ValueError as error:
        raise UsageError(f"{label}: {error}") from error
    return system, path, label


def _session_options() -> dict[str, Any]:
    """Use the proxy that the environment names; a download may take long, but not stand still."""
    from aiohttp import ClientTimeout

    return {"trust_env": True, "timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}


def _remote(system: Any, path: str, label: str) -> File:
    """Return a file that is read where it is, in ranges."""

    def open_() -> pa.NativeFile:
        with _named(label):
            return pa.PythonFile(_Ranges(system.open(path, "rb"), label), "r")

    return File(label, PurePosixPath(path).name, open_)


def _downloaded(system: Any, address: str, label: str) -> File:
    """Return a file that is fetched once it is opened: not every server knows ranges."""

    @cache
    def content() -> pa.Buffer:
        with _named(label), system.open(address, "rb", block_size=0) as body:
            return _copied(lambda file: shutil.copyfileobj(body, file, _CHUNK_BYTES))

    name = PurePosixPath(urlsplit(address).path).name
    return File(label, name, lambda: pa.BufferReader(content()))


class _Ranges:
    """A file of fsspec for Arrow, whose faults have the name of the file."""

    closed = False

    def __init__(self, file: Any, label: str) -> None:
        self._file, self._label = file, label
        self.tell, self.close = file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        with _named(self._label):
            return bytes(self._file.read(size))

    def seek(self, place: int, whence: int = 0) -> int:
        with _named(self._label):
            return int(self._file.seek(place, whence))


def _copied(copy: Callable[[BinaryIO], None]) -> pa.Buffer:
    """Return what a function writes to a file, which nobody else sees and which does not stay."""
    with tempfile.TemporaryFile() as file:
        copy(file)
        size = file.tell()
        file.flush()
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Name a file in the errors of the libraries that reach it, which are of many kinds."""
    try:
        yield
    except ServiceError:
        raise
    except FileNotFoundError as error:
        raise UnreadableError(f"{label}: {os.strerror(ENOENT)}") from error
    except Exception as error:
        # What aiohttp says of a refusal holds the whole address.
        status, message = (getattr(error, name, None) for name in ("status", "message"))
        reason = str(error) if status is None else f"{status} {message}"
        reason = reason.split("\n", 1)[0] or type(error).__name__
        raise UnreadableError(f"{label}: {reason}") from error

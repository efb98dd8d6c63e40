"""What is read from a file of forecasts, and what its errors are called."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from loss_scoring.service.cli.locations import File
from loss_scoring.service.errors import InvalidError, ServiceError, UnreadableError


class Reader(Protocol):
    """Reads columns of a file."""

    def __call__(
        self, columns: Sequence[str], coded: Sequence[str] = (), /
    ) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class Source:
    """A file of forecasts.

    Attributes:
        schema: Its columns. Categories, runs and views have the type of what they hold.
        rows: How many rows it has, None if that is not known beforehand.
        read: Returns batches of the named columns, in the types of the schema, and no others; each
            call reads the file again. Text in columns that a second list names may be coded by a
            dictionary, as it may be in the file.
        categories: Columns of text that are categories in the file.
        takes_decimal: Whether a decimal comma can be told by ``--decimal``.
        is_columnar: Whether a column is read without reading others.
    """

    schema: pa.Schema
    rows: int | None
    read: "Reader"
    categories: frozenset[str] = frozenset()
    takes_decimal: bool = False
    is_columnar: bool = False

    def head(self, columns: Collection[str]) -> pa.Table:
        """Return the ``first_rows`` of some columns."""
        fields = pa.schema([self.schema.field(name) for name in columns])
        return first_rows(self.read(fields.names), fields)


class ExhaustedError(ServiceError):
    """There is not enough memory; the file may be valid."""


_EXHAUSTED = "out of memory", "can't allocate memory", "not enough memory"
"""What torch says on a GPU, and on a CPU by its version."""


@contextmanager
def explained(path: File | Path | str) -> Iterator[None]:
    """Name the file that an error is about."""
    try:
        yield
    except BrokenPipeError:  # nobody reads standard output any more, which is no error
        raise
    except MemoryError as error:
        raise ExhaustedError(f"{path}: not enough memory: {error}") from error
    except (pa.ArrowException, OSError) as error:  # some are values that are wrong, too
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error).split("\n", 1)[0]
        raise UnreadableError(f"{path}: {reason}") from error
    except (InvalidError, ValueError) as error:
        raise InvalidError(f"{path}: {error}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _EXHAUSTED):
            raise
        raise ExhaustedError(f"{path}: not enough memory: {error}") from error


def first_rows(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return the first rows, so many that each column has a value if it can."""
    read, blank = [], set(schema.names)
    for batch in batches:
        read.append(batch)
        blank -= {name for name in blank if batch.column(name).null_count < len(batch)}
        if not blank:
            break
    return pa.Table.from_batches(read, schema)

"""Files of scores, which appear whole or not at all."""

import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from loss_scoring.service.cli.files import FORMATS
from loss_scoring.service.cli.locations import STANDARD, is_address, is_web, label_of, upload
from loss_scoring.service.cli.source import explained
from loss_scoring.service.cli.threads import Behind
from loss_scoring.service.errors import UsageError

_ROWS_WRITTEN = 1 << 17
_ENDS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Output(NamedTuple):
    """Where scores go.

    Attributes:
        label: What messages call it.
        suffix: Its format.
        part: A file of this machine to write first, which no other writer uses.
        publish: Puts what is there in its place.
        mode: Who may read it.
    """

    label: str
    suffix: str
    part: Path
    publish: Callable[[Path], object]
    mode: int = 0o600


def find_output(given: str) -> Output:
    """Return where an output goes, or refuse what could not be written once everything is scored.

    Raises:
        UsageError: If the ending names no format, there is no such folder, or standard output is a
            terminal.
    """
    name = f".{secrets.token_hex(8)}.part"
    temporary = Path(tempfile.gettempdir()) / name
    if given == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("-o -: standard output is a terminal; send the Arrow stream elsewhere")
        return Output("standard output", ".arrows", temporary, _to_standard_output)
    ending = Path(given).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{label_of(given)}: the ending must be one of {' '.join(FORMATS)}")
    if is_web(given):
        raise UsageError(f"{label_of(given)}: takes no files; name one, or one of s3://")
    if is_address(given):
        return Output(label_of(given), ending, temporary, partial(upload, address=given))
    path = Path(given)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    return Output(given, ending, path.with_name(name), partial(Path.replace, target=path), 0o666)


def refuse_overwriting(output: str, *files: str | None) -> None:
    """Refuse an output that is a file to read.

    Raises:
        UsageError: If it is one of the files, None of which are none.
    """
    paths = {Path(file).resolve() for file in files if file is not None and file != STANDARD}
    if Path(output).resolve() in paths:
        raise UsageError(f"{label_of(output)}: is a file to read; name another output")


def _to_standard_output(part: Path) -> None:
    with part.open("rb") as content:
        shutil.copyfileobj(content, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def open_output(output: Output | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends rows; the output appears only once all are written.

    Until then they are in a file that no other writer uses, and that no signal leaves behind.

    Raises:
        UnreadableError: If it cannot be written.
    """
    if output is None:
        yield lambda _rows: None
        return
    label, suffix, part, publish, mode = output

    behind = Behind()
    unwritten: list[pa.Table] = []

    def write(rows: pa.Table) -> None:
        unwritten.append(rows)
        if sum(map(len, unwritten)) >= _ROWS_WRITTEN:
            flush()

    def flush() -> None:
        with explained(label):
            if unwritten:
                behind.call(partial(writer.write_table, pa.concat_tables(unwritten)))
                unwritten.clear()

    with ended_by_signals():
        try:
            with explained(label):
                part.touch(mode, exist_ok=False)  # never a file or a link that is there
                file = part.open("wb")
            writer: Any = file
            try:
                with explained(label):
                    writer = _writer(suffix, file, schema)
                yield write
                flush()
                with explained(label):
                    behind.wait()
                    writer.close()
            except BaseException:
                behind.close()
                for unneeded in (writer, file):  # closed now, and not by a __del__ that complains
                    with suppress(Exception):  # the disk may be full
                        unneeded.close()
                raise
            with explained(label):
                file.close()
                publish(part)
        finally:
            behind.close()
            part.unlink(missing_ok=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first signal that would end the process raise, so that ``finally`` is reached."""

    def end(number: int, _frame: object) -> None:
        for other in handlers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    handlers = {number: signal.getsignal(number) for number in _ENDS}
    handlers = {
        number: was for number, was in handlers.items() if was not in {signal.SIG_IGN, None}
    }
    for number in handlers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, was in handlers.items():
            signal.signal(number, was)


def _writer(suffix: str, file: BinaryIO, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        repeated = [field.name for field in schema if not pa.types.is_float64(field.type)]
        return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated)
    if suffix == ".csv":
        return pa.csv.CSVWriter(file, schema)
    return (pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file)(file, schema)

"""The command ``lossclient``: score a file at a service, on a machine that needs no torch.

Exit status: 0 if all was scored, 1 if it could not be, 2 if the command line makes no sense.
Scores go to standard output as CSV unless a file is named; what is left out, and faults, to
standard error.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lossclient.base_client import KEY_VARIABLE, __version__
from lossclient.client import Client
from lossclient.exceptions import InvalidInput, LossClientError, printable
from lossclient.joining.roles import holds_codes

URL_VARIABLE = "LOSSCLIENT_URL"
_ARROW = (".arrow", ".feather", ".ipc", ".arrows")
_ENDINGS = (".parquet", ".csv", *_ARROW)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, and raises SystemExit for wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for file in filter(None, (given.file, given.output)):
        if file.suffix.lower() not in _ENDINGS:
            parser.error(f"{printable(str(file))}: the ending must be one of {' '.join(_ENDINGS)}")
    if not given.url:
        parser.error(f"name the service by --url or by the variable {URL_VARIABLE}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if given.quiet else "always")
        warnings.showwarning = lambda message, *_, **__: _say(str(message))
        try:
            _score(given)
        except (LossClientError, OSError, pa.ArrowException) as error:
            _say(f"error: {error}")
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lossclient", description="Score forecasts at a loss-scoring service.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"lossclient {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="score a file",
        description="Score a file in the long form, as Nixtla's cross_validation returns it: "
        "unique_id, [cutoff,] ds, y and a column a model.",
        epilog=f"The key of the service, if it asks for one, is in the variable {KEY_VARIABLE}.",
        allow_abbrev=False,
    )
    add = score.add_argument
    endings = " ".join(_ENDINGS)
    add("file", type=Path, metavar="FILE", help=f"of forecasts: {endings}")
    add("--url", default=os.environ.get(URL_VARIABLE), help=f"of the service [{URL_VARIABLE}]")
    add("-o", "--output", type=Path, help=f"a row for each series and model: {endings}")
    add("--losses", type=_losses, help="comma-separated; default: those of the service")
    add("--missing", default="error", choices=("error", "skip", "propagate"))
    add("--zero-division", default="zero", choices=("zero", "skip"))
    add("--duplicates", default="error", choices=("error", "allow"))
    add("--models", type=_names, help="columns of predictions; default all of numbers")
    add("--exclude", type=_names, default=(), help="columns that are no predictions")
    for role, name in (
        ("id", "unique_id"), ("time", "ds"), ("target", "y"), ("cutoff", "cutoff"),
    ):  # fmt: skip
        add(f"--{role}-col", default=name, help=f"default {name}")
    add("--deadline-s", type=float, help="seconds for all of it, retries included")
    add("-q", "--quiet", action="store_true", help="nothing on standard error but errors")
    return parser


def _losses(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def _listed(names: Sequence[str], columns: Collection[str]) -> list[str]:
    """Return names without the blanks about them, unless columns have these, too."""
    return [name if name in columns else name.strip() for name in names]


def _score(given: argparse.Namespace) -> None:
    output = given.output
    if output is not None:  # what could not be written once all is scored
        if output.is_dir():
            raise InvalidInput(f"{output}: is a folder; name a file")
        if not output.parent.is_dir():
            raise InvalidInput(f"{output}: there is no folder {output.parent}")
        if output.resolve() == given.file.resolve():
            raise InvalidInput(f"{output}: is the file to read; name another output")
    table = _read(given)
    columns = table.column_names
    with Client(
        given.url, api_key=os.environ.get(KEY_VARIABLE) or None, deadline_s=given.deadline_s
    ) as client:
        scores = client.score(
            table,
            None if given.models is None else _listed(given.models, columns),
            *(given.id_col, given.time_col, given.target_col, given.cutoff_col),
            losses=given.losses,
            missing=given.missing,
            zero_division=given.zero_division,
            exclude=_listed(given.exclude, columns),
            duplicates=given.duplicates,
            progress=False if given.quiet else None,
        )
    if output is None:
        pa.csv.write_csv(scores, sys.stdout.buffer)
        sys.stdout.flush()
        return
    with _whole(output) as part:
        _write(scores, part, output.suffix.lower())


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """Yield a file of this writer alone, which becomes the output; SIGTERM removes it as well."""
    part = output.with_name(f".{secrets.token_hex(8)}.part")
    before = signal.getsignal(signal.SIGTERM)
    ends = before not in {signal.SIG_IGN, None}
    ends = ends and threading.current_thread() is threading.main_thread()  # others set no handler
    if ends:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        try:
            part.touch(0o666, exist_ok=False)
        except OSError as error:
            raise InvalidInput(f"{output}: {error.strerror}") from error
        yield part
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
        if ends:
            signal.signal(signal.SIGTERM, before)


def _read(given: argparse.Namespace) -> pa.Table:
    path = given.file
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(given)
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path, partitioning=None)
        with pa.memory_map(str(path)) as file:
            return _read_arrow(file)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def _read_csv(given: argparse.Namespace) -> pa.Table:
    """Read ids, codes, and cutoffs that are no times, as text: 007 is no 7."""
    table = _of_csv(given.file, {given.id_col: pa.string()})
    names = [name for name in table.column_names if table.column_names.count(name) == 1]
    numbers = {given.target_col, *_listed(given.models or (), names)}
    types = {name: table.schema.field(name).type for name in names if name not in numbers}
    written = {name: pa.string() for name, type_ in types.items() if pa.types.is_integer(type_)}
    cutoff = given.cutoff_col
    if cutoff in types and not pa.types.is_temporal(types[cutoff]):
        written[cutoff] = pa.string()
    texts = _of_csv(given.file, written, list(written)) if written else table
    for name in names:
        column = table[name]
        if name in written and (name == cutoff or holds_codes(texts[name])):
            column = texts[name]
        if name in {given.id_col, cutoff, given.time_col} and pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _of_csv(path: Path, types: dict[str, pa.DataType], columns: Sequence[str] = ()) -> pa.Table:
    options = pa.csv.ConvertOptions(column_types=types, include_columns=list(columns))
    return pa.csv.read_csv(path, convert_options=options)


def _read_arrow(file: pa.NativeFile) -> pa.Table:
    if file.read(6) == b"ARROW1":
        return pa.ipc.open_file(file).read_all()
    file.seek(0)
    return pa.ipc.open_stream(file).read_all()


def _write(scores: pa.Table, path: Path, ending: str) -> None:
    if ending == ".parquet":
        pq.write_table(scores, path, compression="zstd")
    elif ending == ".csv":
        pa.csv.write_csv(scores, path)
    else:
        make: Any = pa.ipc.new_stream if ending == ".arrows" else pa.ipc.new_file
        with make(path, scores.schema) as writer:
            writer.write_table(scores)


def _say(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")


if __name__ == "__main__":
    sys.exit(main())

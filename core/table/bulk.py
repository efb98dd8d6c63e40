"""Tables that are spread over machines, where they are: on Ray Data and on Spark.

A loss is a mean over a series, so all rows of a series must come to one worker. Engines cut where
they like, so what is scored is first shuffled by the columns that name a series, by the engine. A
leaderboard needs the losses alone: workers check that no series comes twice, and send a row a
series without its key, 8 bytes a model and loss, from which it has the same bits as from the whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from loss_scoring.core.table.comparison import Leaderboard, leaderboard
from loss_scoring.core.table.comparison.frames import flattened, read_scores
from loss_scoring.core.table.joining import Actuals, UnmatchedWarning
from loss_scoring.core.table.joining.cells import plain
from loss_scoring.core.table.score import KEYS, by_new_names, score_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from ray.data import Dataset

_HEAD_ROWS = 1000
"""By which columns and options are checked before anything is shuffled."""
_SERIES = "series, numbered"
"""The column that tells series apart once their keys are gone; named as no other is."""


def score_ray(
    dataset: Dataset,
    *,
    partitions: int | None = None,
    shuffle: bool = True,
    actors: int | None = None,
    num_gpus: float | None = None,
    **options: Any,
) -> Dataset:
    """Score every series of a data set of Ray and every model, as ``score_table`` does a table.

    Rows of a series are taken in the order of their times, wherever they are, so that scores have
    the same bits from run to run, and those of ``score_table`` for a table in that order.

    Args:
        dataset: One row an element.
        partitions: How many tables to score; each must fit several times in the memory of an
            actor. Default: ``DataContext.default_hash_shuffle_parallelism``.
        shuffle: Whether to bring the rows of each series together first. Without it each block must
            hold whole series; ``leaderboard_ray`` finds series that were cut.
        actors: How many score at once; one a GPU by default, or as many as there are CPUs.
        num_gpus: Of each actor; 1 by default if the cluster has any.
        options: Of ``score_table``, but for ``by`` and ``device``. Tables such as ``actuals`` and
            ``train_df`` are sent to every actor, which warns in its log of rows without an actual
            value.

    Returns:
        One row a series and model, in no particular order, with the columns of ``score_table``. It
        is computed when it is read.

    Raises:
        TableError: As ``score_table`` does for the first rows of the data set.
        ValueError: Likewise.
    """
    import ray  # noqa: PLC0415 - an engine is optional
    from ray.data import ActorPoolStrategy  # noqa: PLC0415

    head = dataset.take_batch(_HEAD_ROWS, batch_format="pyarrow")
    has = ray.cluster_resources()
    num_gpus = min(has.get("GPU", 0), 1) if num_gpus is None else num_gpus
    options = _checked(head, options) | {"device": "cuda" if num_gpus else "cpu"}
    if shuffle:
        dataset = dataset.repartition(_partitions(partitions), keys=list(options["group_by"]))
    most = int(has.get("GPU", 0) / num_gpus) if num_gpus else int(has.get("CPU", 1))
    pool = {"min_size": 1, "max_size": max(most, 1)} if actors is None else {"size": actors}
    return dataset.map_batches(
        _Worker,
        fn_constructor_kwargs={"options": options},
        batch_size=None,  # a block as it is: any other size cuts through series
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(**pool),
        num_gpus=num_gpus,
    )


def score_spark(
    frame: DataFrame,
    *,
    partitions: int | None = None,
    shuffle: bool = True,
    **options: Any,
) -> DataFrame:
    """Score every series of a frame of Spark and every model, as ``score_table`` does a table.

    Rows of a series are taken in the order of their times, as by ``score_ray``. A task that has a
    GPU by Spark's own scheduling (``spark.task.resource.gpu.amount``) scores on it.

    Args:
        frame: One row an element.
        partitions: How many tables to score; each must fit several times in the memory of a task.
            Default: what Spark makes of ``spark.sql.shuffle.partitions``.
        shuffle: Whether to bring the rows of each series together first. Without it each partition
            must hold whole series; ``leaderboard_spark`` finds series that were cut.
        options: As of ``score_ray``.

    Returns:
        One row a series and model, in no particular order, with the columns of ``score_table``;
        gradients are arrays. It is computed when it is read.

    Raises:
        TableError: As ``score_table`` does for the first rows of the frame.
        ValueError: Likewise.
    """
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - an engine is optional
    from pyspark.sql.types import StructField, StructType  # noqa: PLC0415

    options = _checked(frame.limit(_HEAD_ROWS).toArrow(), options)
    keys = list(options["group_by"])
    if shuffle:
        counts = [] if partitions is None else [partitions]
        frame = frame.repartition(*counts, *keys)
    own = {name: frame.schema[name].dataType for name in keys}
    schema = from_arrow_schema(_for_spark(options["schema"]))
    fields = [StructField(field.name, own.get(field.name, field.dataType)) for field in schema]
    return frame.mapInArrow(partial(_score_batches, options), StructType(fields))


def leaderboard_ray(
    scores: Dataset,
    loss: str | Sequence[str] = "smape",
    *,
    partitions: int | None = None,
    **options: Any,
) -> Leaderboard:
    """Compare models by scores that are a data set of Ray, with the bits of ``leaderboard``.

    Args:
        scores: A row a series and model, as of ``score_ray``.
        loss: The column to compare by, or several.
        partitions: Into how many parts series are divided.
        options: Of ``leaderboard``.

    Raises:
        ScoresError: As ``leaderboard`` does. If a series was cut, so that it comes twice, Ray's
            ``RayTaskError`` says it.
        ValueError: Likewise.
    """
    import ray  # noqa: PLC0415 - an engine is optional

    reading = _Reading(scores.take_batch(1, batch_format="pyarrow"), loss, options)
    parts = scores.select_columns(reading.columns)
    parts = parts.repartition(_partitions(partitions), keys=reading.keys)
    parts = parts.map_batches(reading.part, batch_size=None, batch_format="pyarrow")
    return reading.board(ray.get(parts.to_arrow_refs()))


def leaderboard_spark(
    scores: DataFrame, loss: str | Sequence[str] = "smape", **options: Any
) -> Leaderboard:
    """Compare models by scores that are a frame of Spark, with the bits of ``leaderboard``.

    Args:
        scores: A row a series and model, as of ``score_spark``.
        loss: The column to compare by, or several.
        options: Of ``leaderboard``.

    Raises:
        ScoresError: As ``leaderboard`` does. If a series was cut, so that it comes twice, Spark's
            ``PythonException`` says it.
        ValueError: Likewise.
    """
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - an engine is optional

    head = scores.limit(1).toArrow()
    reading = _Reading(head, loss, options)
    parts = scores.select(*reading.columns).repartition(*reading.keys)
    schema = from_arrow_schema(reading.part(head).schema)
    return reading.board([parts.mapInArrow(reading.batches, schema).toArrow()])


def _checked(head: pa.Table, options: dict[str, Any]) -> dict[str, Any]:
    """Return options by which all parts are scored alike, or refuse those that do not fit."""
    for name in ("by", "device"):
        if options.get(name) is not None:
            raise ValueError(f"{name} is not for tables that are spread over machines")
    options = {"group_by": KEYS, "time_col": "ds", "target_col": "y"} | by_new_names(options)
    sample = _score(head, options)
    models = pc.unique(sample["model"]).to_pylist()
    if models:
        options |= {"models": models}
        options.pop("exclude", None)
    return options | {"schema": sample.schema}


def _score(table: pa.Table, options: dict[str, Any]) -> pa.Table:
    """Score whole series."""
    options = dict(options)
    actuals, on, time = options.pop("actuals", None), options.pop("on", ()), options["time_col"]
    schema = options.pop("schema", None)
    if actuals is not None:  # not by score_table, as there may be none for the series of a part
        known = Actuals(actuals, on or (options["group_by"][0], time), options["target_col"])
        table = known.join(table)
        if known.matches.without_actual:
            warnings.warn(f"not all is scored: {known.matches}", UnmatchedWarning, stacklevel=2)
    if time in table.column_names:
        table = table.take(pc.sort_indices(plain(table[time])))
    scores = score_table(table, **options)
    return scores if schema is None else scores.cast(schema)


class _Worker:
    """Scores blocks, and has a GPU, and compiled kernels, of its own."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, block: pa.Table) -> pa.Table:
        if not len(block):  # more partitions than series
            return self._options["schema"].empty_table()
        return _score(block, self._options)


def _score_batches(
    options: dict[str, Any], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Score the rows of a partition of Spark, which come in batches that cut through series."""
    from pyspark import TaskContext  # noqa: PLC0415 - an engine is optional

    parts = list(batches)
    if not sum(map(len, parts)):
        return
    task = TaskContext.get()
    gpus = task.resources().get("gpu") if task is not None else None
    device = "cpu" if gpus is None else f"cuda:{gpus.addresses[0]}"
    scores = _score(pa.Table.from_batches(parts), options | {"device": device})
    yield from scores.cast(_for_spark(scores.schema)).to_batches()


def _for_spark(schema: pa.Schema) -> pa.Schema:
    """Return columns with lists that Spark reads."""
    for place, field in enumerate(schema):
        if pa.types.is_large_list(field.type):
            schema = schema.set(place, field.with_type(pa.list_(field.type.value_type)))
    return schema


def _partitions(given: int | None) -> int:
    from ray.data import DataContext  # noqa: PLC0415 - an engine is optional

    return given or DataContext.get_current().default_hash_shuffle_parallelism


class _Reading:
    """What a leaderboard reads of scores, part by part.

    Attributes:
        columns: Those that it reads.
        keys: Those of them that together name a series.
    """

    def __init__(self, head: pa.Table, loss: str | Sequence[str], options: dict[str, Any]) -> None:
        self._loss, self._options = loss, options
        losses = [loss] if isinstance(loss, str) else list(loss)
        by = options.get("by") or ()
        self._by = [by] if isinstance(by, str) else list(by)
        read = read_scores(head, losses, self._by, options.get("keys"))
        self.keys = list(dict.fromkeys([*read.by, *read.keys]))
        masked = [f"{name}_masked" for name in losses if f"{name}_masked" in head.column_names]
        weights = filter(None, [options.get("weights")])
        self._numbers = list(dict.fromkeys(["model", *losses, *masked, *weights]))
        self.columns = list(dict.fromkeys([*self.keys, *self._numbers]))
        self._empty = self.part(head).slice(0, 0)

    def part(self, scores: pa.Table) -> pa.Table:
        """Return a row a series without its key, and with lists of what its models have."""
        if not len(scores):
            return self._empty
        read = read_scores(scores, (), self._by, [*self.keys])
        return read.lists(self._numbers)

    def batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Do so with the rows of a partition of Spark."""
        parts = list(batches)
        if parts:
            yield from self.part(pa.Table.from_batches(parts)).to_batches()

    def board(self, parts: Iterable[pa.Table]) -> Leaderboard:
        """Return the leaderboard of all parts."""
        lists = pa.concat_tables([self._empty, *parts])
        scores = flattened(lists, self._by, _SERIES)
        return leaderboard(scores, self._loss, **self._options | {"keys": [_SERIES]})

"""``loss-scoring score --engine ray``: files that outgrow a machine, on a cluster of Ray."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from glob import has_magic
from pathlib import Path

import pyarrow as pa

from loss_scoring.core import ScoreOptions
from loss_scoring.core.table import Leaderboard, TableError, leaderboard_ray, score_ray
from loss_scoring.service.cli.boards import QUIET, say
from loss_scoring.service.cli.columns import FileColumns, Roles, find_columns
from loss_scoring.service.cli.inputs import Inputs, find_parts, with_actuals
from loss_scoring.service.cli.locations import is_address, is_web, label_of
from loss_scoring.service.cli.source import Source, explained
from loss_scoring.service.errors import InvalidError, UsageError

_HEAD_ROWS = 1000
_FAULT = re.compile(r"^[\w.]+Error: (.*)$", re.MULTILINE)


class RayScoring:
    """Files of forecasts that are scored on Ray: the cluster of ``RAY_ADDRESS``, or a local one.

    Attributes:
        layout: Their columns.
    """

    layout: FileColumns

    def __init__(self, inputs: Inputs, roles: Roles, options: ScoreOptions) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                f"--engine ray: {error}; pip install 'ray[data]' 'fsspec[http]'"
            ) from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = not QUIET.get()
        self._inputs, self._roles, self._options = inputs, roles, options
        self._actuals = inputs.read_actuals(roles)
        with self._explained():
            hive = ray.data.datasource.Partitioning("hive")
            self._dataset = ray.data.read_parquet(_paths(inputs.files), partitioning=hive)
            head = self._dataset.take_batch(_HEAD_ROWS, batch_format="pyarrow")

            def read(
                columns: Sequence[str], _coded: Sequence[str] = ()
            ) -> Iterator[pa.RecordBatch]:
                yield from head.select(list(columns)).to_batches()

            source = Source(head.schema, None, read)
            self.layout = find_columns(
                source if self._actuals is None else with_actuals(source, self._actuals), roles
            )
            if self.layout.nested:
                raise TableError(("", "--engine ray is for files with a row an element"))

    def board(
        self,
        history: pa.Table | None,
        seasonality: int | None,
        output: str | None,
        baseline: str | None,
        resamples: int,
    ) -> Leaderboard:
        """Score, write the scores to a folder of Parquet files if it is named, and compare models.

        Raises:
            InvalidError: If some cannot be scored, or the folder is there already.
        """
        import ray

        if output is not None and not is_address(output) and Path(output).exists():
            raise InvalidError(f"{output}: is there already; name another folder")
        layout, options, actuals = self.layout, self._options, self._actuals
        with self._explained():
            scores = score_ray(
                self._dataset,
                group_by=layout.keys,
                time_col=self._roles.time,
                cutoff_col=layout.cutoff,
                target_col=layout.target,
                models=layout.models,
                losses=options.losses,
                missing=options.missing,
                zero_division=options.zero_division,
                duplicates=layout.duplicates,
                weight_col=layout.weight,
                scale_col=layout.scale,
                train_df=history,
                seasonality=seasonality,
                actuals=None if actuals is None else actuals.table,
                on=() if actuals is None else actuals.on,
            ).materialize()
            if actuals is not None:  # which the actors looked up, each in its log
                matched = (scores.sum("length") or 0) // len(layout.models)
                without = self._dataset.count() - matched
                say(f"{matched} rows of forecasts have an actual value, {without} have none yet")
            names = [spec.name for spec in options.losses]
            board = leaderboard_ray(
                scores, names, baseline=baseline, keys=layout.keys, n_resamples=resamples
            )
        if output is not None:
            with self._explained(label_of(output)):
                scores.write_parquet(output, mode=ray.data.SaveMode.ERROR)
        return board

    @contextmanager
    def _explained(self, label: str | None = None) -> Iterator[None]:
        """Say in a line what went wrong, be it on another machine."""
        import ray

        label = label or str(self._inputs)
        with explained(label):
            try:
                yield
            except ImportError as error:
                hint = "loss-scoring[remote] brings it"
                raise UsageError(f"--engine ray: {error}; {hint}") from error
            except ray.exceptions.RayError as error:
                faults = _FAULT.findall(str(error)) or [str(error).strip().splitlines()[-1]]
                raise InvalidError(faults[-1]) from error


def _paths(files: Collection[str]) -> list[str]:
    """Return what Ray reads: it knows folders and addresses, but no patterns."""
    paths = []
    for given in files:
        if is_web(given) or (is_address(given) and not has_magic(given)):  # a query has a mark
            paths.append(given)
            continue
        parts = find_parts(given)
        if other := [part.file for part in parts if part.file.ending != ".parquet"]:
            raise UsageError(f"{other[0]}: --engine ray reads Parquet")
        paths += [part.file.label for part in parts]
    return paths

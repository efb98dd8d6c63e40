"""A decoded request: flat buffers that the layers below trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.core.table import Groups, Layout
from loss_scoring.service.errors import TooLargeError

MAX_ID_BYTES = 512
ALLOW_MISSING = "missing=skip leaves such elements out, missing=propagate keeps them"


@dataclass(frozen=True, eq=False)
class LongForm:
    """What the answer to a request in the long form needs to know of it.

    Attributes:
        layout: Which column was what.
        groups: The series, each of which every model predicted.
        key_bytes: About how many bytes the keys take in the answer.
    """

    layout: Layout
    groups: Groups
    key_bytes: int


@dataclass(slots=True, eq=False)  # not frozen: that takes three times as long to make
class ScoreRequest:
    """Many series of (prediction, target) and what to compute of them.

    Attributes:
        prediction: float32 or float64.
        target: The same dtype and offsets.
        options: What to compute.
        ids: One a series, in order.
        channels: The width C of each T x C series, 0 for a plain one; None if all are plain.
        gradient_type: The Arrow type of a gradient column when the request was Arrow.
        copied: Whether numbers of Arrow were laid out again, and not read in place.
        long: If it came in the long form. Its series are then those of the first model, then
            those of the second, and so on, each with the one target.
        elements: The number of (prediction, target) pairs.
        answer_bytes: About the size of the answer, once its format is known.
    """

    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    ids: Sequence[int | str] | pa.Array
    channels: npt.NDArray[np.int64] | None = None
    gradient_type: pa.DataType | None = None
    copied: bool = False
    long: LongForm | None = None
    elements: int = field(init=False)
    answer_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.elements = self.prediction.elements

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.prediction)

    def id_list(self) -> list[int | str]:
        """Return the ids as Python objects."""
        if isinstance(self.ids, pa.Array):
            return self.ids.to_pylist()  # type: ignore[no-any-return]
        return list(self.ids)


def check_elements(elements: int, limit: int) -> None:
    """Raise ``TooLargeError`` above the limit."""
    if elements > limit:
        raise TooLargeError(
            f"the request has {elements} elements, this server takes {limit}; split it by series"
        )

"""What scores: an engine in this process, or one that stands for a worker in another."""

import asyncio
import math
from dataclasses import dataclass
from typing import Protocol

from loss_scoring.core import Ragged, ScoreOptions, Scores


@dataclass(frozen=True, eq=False)
class Answer:
    """The scores of a request and what they cost.

    Attributes:
        scores: One row a series, in the request's order.
        queue_s: Seconds from admission to the first batch.
        compute_s: Seconds in batches, neighbours included; where two overlap, both count.
    """

    scores: Scores
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What an engine goes by.

    Attributes:
        inline_elements: The largest request that ``score_inline`` takes. On a CPU that is quicker
            than to wake a thread, which then contends for the interpreter; on another device it
            must be 0.
        idle_inline_elements: The same where no other request is under way, so that nobody waits
            for the event loop.
        hung_s: A batch that takes longer means that the device hangs.
    """

    inline_elements: int = 0
    idle_inline_elements: int = 0
    hung_s: float = math.inf


class Scorer(Protocol):
    """The engine as routes see it; ``Engine`` says what each part does."""

    @property
    def ready(self) -> bool:
        """Whether a batch was scored on the device and requests are admitted."""

    @property
    def lost(self) -> bool:
        """Whether only a new process can help."""

    @property
    def queued_elements(self) -> int:
        """How many elements wait."""

    async def start(self) -> None:
        """Begin to take requests."""

    async def stop(self) -> None:
        """Refuse new requests and finish the admitted ones."""

    def score_inline(
        self, prediction: Ragged, target: Ragged, options: ScoreOptions, *, idle: bool = False
    ) -> Answer | None:
        """Score a small request on the calling thread; None if it is one to ``submit``."""

    def submit(
        self,
        prediction: Ragged,
        target: Ragged,
        options: ScoreOptions,
        *,
        client: str = "",
        deadline: float = math.inf,
    ) -> asyncio.Future[Answer]:
        """Queue a request; cancelling the future withdraws it."""

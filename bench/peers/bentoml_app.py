"""BentoML: two workers.

Its adaptive batching is not used: a batchable API cannot return a response that is already encoded,
and what it encodes itself takes longer than batching saves (with gradients three times as long).

bentoml serve bentoml_app:Scoring --port PORT
"""

from typing import Any

import bentoml
import orjson
from pydantic import BaseModel
from scoring import Series, score_requests
from starlette.responses import Response


class Body(BaseModel):
    losses: list[str]
    gradients: bool = False
    series: list[Series]


@bentoml.service(
    workers=2,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Scoring:
    @bentoml.api(route="/score")
    def score(self, body: Body, /) -> Any:
        (answer,) = score_requests([dict(body)])
        return Response(orjson.dumps(answer), media_type="application/json")

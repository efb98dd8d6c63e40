"""The Open Inference Protocol, version 2: a loss is a model, and a request to infer scores.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.core import LOSSES
from loss_scoring.service import __version__
from loss_scoring.service.api.negotiation import coding_of
from loss_scoring.service.api.routes import check_live, check_ready
from loss_scoring.service.api.score import ScoreEndpoint
from loss_scoring.service.api.start import Start
from loss_scoring.service.codecs import tensors
from loss_scoring.service.codecs.codec import Formats
from loss_scoring.service.engine import ScoringEngine
from loss_scoring.service.errors import UnreadableError
from loss_scoring.service.limits.body import whole_number

_MODEL = ("/v2/models/{loss}", "/v2/models/{loss}/versions/{version}")
_Described = dict[str, Any]


class InferEndpoint:
    """The ASGI application behind ``POST /v2/models/{loss}/infer``.

    Attributes:
        direct: The same for each loss, by path, without a framework's routing.
    """

    def __init__(self, score: ScoreEndpoint) -> None:
        self._score = score
        self.direct: dict[str, ASGIApp] = {
            f"{path.format(loss=loss, version=tensors.VERSION)}/infer": partial(self._infer, loss)
            for path in _MODEL
            for loss in LOSSES
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ``POST /score`` does."""
        model = scope["path_params"]
        check_model(model["loss"], model.get("version", tensors.VERSION))
        await self._infer(model["loss"], scope, receive, send)

    def _infer(
        self, loss: str, scope: Scope, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        return self._score.serve(scope, receive, send, partial(_formats, loss))


def build_inference_router(engine: ScoringEngine, start: Start, infer: InferEndpoint) -> APIRouter:
    """Return the routes below ``/v2``, which a document of their own describes, not ours."""
    router = APIRouter(include_in_schema=False)

    @router.get("/v2")
    @router.get("/v2/")
    async def server() -> _Described:
        extensions = ["binary_tensor_data"]
        return {"name": "loss-scoring", "version": __version__, "extensions": extensions}

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        check_live(engine)
        return {"live": True}

    @router.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        check_ready(engine, start)
        return {"ready": True}

    @router.get("/v2/models")
    async def models() -> dict[str, list[str]]:
        return {"models": [*LOSSES]}

    @router.get(_MODEL[0])
    @router.get(_MODEL[1])
    async def model(loss: str, version: str = tensors.VERSION) -> _Described:
        check_model(loss, version)
        return describe(loss)

    @router.get(f"{_MODEL[0]}/ready")
    @router.get(f"{_MODEL[1]}/ready")
    async def model_ready(loss: str, version: str = tensors.VERSION) -> _Described:
        check_model(loss, version)
        check_ready(engine, start)
        return {"name": loss, "ready": True}

    router.routes += [Route(f"{path}/infer", infer, methods=["POST"]) for path in _MODEL]
    return router


def _formats(loss: str, headers: Mapping[bytes, bytes]) -> Formats:
    """Return the formats of a request, whose Content-Type says nothing: clients differ in it."""
    length = headers.get(b"inference-header-content-length")
    json_bytes = None if length is None else whole_number(length)
    if length is not None and json_bytes is None:
        raise UnreadableError("Inference-Header-Content-Length must be a whole number of bytes")
    coding = coding_of(headers.get(b"content-encoding", b""))
    return Formats("tensors", "tensors", coding, tensors.Call(loss, json_bytes))


def check_model(loss: str, version: str) -> None:
    """Raise ``HTTPException`` with status 404 unless there is such a model."""
    if loss not in LOSSES:
        raise HTTPException(404, f"there is no model {loss!r}; known are {', '.join(LOSSES)}")
    if version != tensors.VERSION:
        raise HTTPException(404, f"{loss} has version {tensors.VERSION}, not {version!r}")


def describe(loss: str) -> _Described:
    """Return the metadata of a model.

    Example:
        >>> [tensor["name"] for tensor in describe("mase")["inputs"]]
        ['prediction', 'target', 'offsets', 'weight', 'scale']
    """
    inputs = {"prediction": "FP64", "target": "FP64", "offsets": "INT64", "weight": "FP64"}
    if LOSSES[loss].scaled:
        inputs["scale"] = "FP64"
    return {
        "name": loss,
        "versions": [tensors.VERSION],
        "platform": "loss-scoring",
        "inputs": _tensors(inputs),
        "outputs": _tensors(tensors.OUTPUTS),
    }


def _tensors(datatypes: Mapping[str, str]) -> list[_Described]:
    return [
        {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in datatypes.items()
    ]

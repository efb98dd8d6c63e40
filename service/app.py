"""Puts the parts together: settings, engine, routes, middleware."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.core.machine import choose_device
from loss_scoring.service import __version__
from loss_scoring.service.api.auth import Keys
from loss_scoring.service.api.context import CONTEXT, SCORE_PATHS, Context, ContextMiddleware
from loss_scoring.service.api.inference import InferEndpoint, build_inference_router
from loss_scoring.service.api.openapi import TAGS, add_keys, add_score
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.api.routes import HeadMiddleware, answer_unmatched, build_router
from loss_scoring.service.api.score import ScoreEndpoint
from loss_scoring.service.api.start import Start
from loss_scoring.service.codecs.pools import POOLS
from loss_scoring.service.engine import BatchPolicy, Engine, Limits, ScoringEngine
from loss_scoring.service.engine.worker import DeviceWorker, device_memory
from loss_scoring.service.errors import ServiceError
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import PROBES
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.traces import Tracing


def create_app(
    settings: Settings,
    worker: DeviceWorker | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    start: Start | None = None,
) -> ASGIApp:
    """Return the ASGI application: FastAPI's, and before it shortcuts to what scores.

    FastAPI's routing and middleware cost more than a small request. Its own routes for these paths
    answer other methods, and requests below a ``root_path``.

    Args:
        settings: All that can be chosen from outside.
        worker: Overrides the worker on ``settings.device``.
        metrics: Where to count, if not in new ones.
        tracing: Makes spans; None for no spans.
        start: How far the start is, for the server; None completes it before the lifespan begins.
    """
    metrics = metrics or Metrics()
    engine = build_engine(settings, metrics, worker)
    if tracing is not None:
        engine.on_traced = tracing.batch
    return assemble(settings, engine, metrics, tracing, start)


def build_engine(settings: Settings, metrics: Metrics, worker: DeviceWorker | None) -> Engine:
    """Return an engine in this process."""
    policy = BatchPolicy(batch_elements=settings.batch_elements)
    worker = worker or DeviceWorker(choose_device(settings.device))
    on_cpu = worker.device.type == "cpu"
    watch_device(metrics, worker)
    limits = Limits(
        inline_elements=settings.inline_elements if on_cpu else 0,
        idle_inline_elements=settings.idle_inline_elements if on_cpu else 0,
        hung_s=settings.hung_s,
    )
    quota = QueueQuota(settings.max_queued_elements)
    return Engine(worker, policy, metrics.observe_batch, limits, quota)


def watch_device(metrics: Metrics, worker: DeviceWorker) -> None:
    """Show a device and what runs on it in the metrics."""
    metrics.watch("build_info", lambda: 1, __version__, version("torch"), str(worker.device))
    metrics.watch_device(lambda: device_memory(worker.device), lambda: worker.exhausted)


def assemble(
    settings: Settings,
    engine: ScoringEngine,
    metrics: Metrics,
    tracing: Tracing | None = None,
    start: Start | None = None,
) -> ASGIApp:
    """Return the ASGI application around an engine; see ``create_app``."""
    start = start or Start()
    metrics.watch("ready_processes", lambda: engine.ready)
    metrics.watch("queued_elements", lambda: engine.queued_elements)
    metrics.watch("queued_elements_limit", lambda: settings.max_queued_elements)
    for name, pool in POOLS.items():
        metrics.watch("pooled_bytes", lambda pool=pool: pool.retained_bytes, name)  # type: ignore[misc]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await start.begin(engine)
        publishing = asyncio.create_task(metrics.keep_published())
        yield
        await engine.stop()
        publishing.cancel()
        metrics.publish()
        if tracing is not None:
            await asyncio.to_thread(tracing.flush)

    keys = Keys.of(settings)
    app = _framework(settings, keys, build_router(engine, metrics, start), lifespan)
    app.add_middleware(HeadMiddleware)
    score = ScoreEndpoint(engine, settings, start)
    infer = InferEndpoint(score)
    app.include_router(build_inference_router(engine, start, infer))
    metrics.watch("open_bytes", lambda: score.memory.held)
    metrics.watch("open_bytes_limit", lambda: settings.max_open_bytes)
    app.router.routes += [Route(path, score, methods=["POST"]) for path in SCORE_PATHS]
    app.add_middleware(_Raised)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, answer_unmatched)

    async def serve_others(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        if (error := scope.pop(_RAISED, None)) is not None:
            raise error

    direct = dict.fromkeys(SCORE_PATHS, score) | infer.direct

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = direct.get(scope["path"]) if scope.get("method") == "POST" else None
        return (endpoint or serve_others)(scope, receive, send)

    return ContextMiddleware(dispatch, metrics, settings, keys, tracing, score)


_RAISED = "loss_scoring.raised"


class _Raised:
    """Passes what a route raises to the context: FastAPI's own guard would answer in text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            scope[_RAISED] = error


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - it is registered for this class
    context: Context = request.scope[CONTEXT]
    if request.url.path not in PROBES:  # whose 503 refuses no request
        context.reason = error.reason
    return problem_of(error, context.request_id, request.scope)


def openapi_document(settings: Settings) -> dict[str, Any]:
    """Return what ``GET /openapi.json`` answers."""
    router = build_router(None, None, None)  # type: ignore[arg-type]  # none is called
    return _framework(settings, Keys.of(settings), router).openapi()


def _framework(
    settings: Settings,
    keys: Keys | None,
    router: APIRouter,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Return the framework with the small routes, and with what it cannot know in its document."""
    app: FastAPI = FastAPIOffline(
        title="loss-scoring",
        summary="Scores forecasts: losses per series, with gradients.",
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "Where this document comes from."}],
        openapi_tags=TAGS,
        lifespan=lifespan,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours know of all routes
        redirect_slashes=False,  # a redirect loses the body, and behind a proxy the scheme
    )
    app.include_router(router)
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = derive()  # FastAPI keeps it
            add_score(document, settings.default_timeout_ms)
            if keys is not None:
                add_keys(document, keys.open_paths)
        return derive()

    app.openapi = openapi  # type: ignore[method-assign]
    return app

"""The small routes, and requests that no route takes: HEAD, OPTIONS, 404, 405."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from difflib import get_close_matches
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.core import DEFAULT_LOSSES, LOSSES
from loss_scoring.service import __version__
from loss_scoring.service.api.context import CONTEXT
from loss_scoring.service.api.models import LossRow
from loss_scoring.service.api.page import FILES, HEADERS, TYPES
from loss_scoring.service.api.problems import problem
from loss_scoring.service.api.start import Start
from loss_scoring.service.codecs.options import schema_of
from loss_scoring.service.engine import ScoringEngine
from loss_scoring.service.errors import OverloadedError
from loss_scoring.service.telemetry.metrics import Metrics

_METHODS = ("GET", "HEAD", "POST")
_ELSEWHERE = {
    **dict.fromkeys(("", "index.html", "ui"), "/"),
    **dict.fromkeys(("doc", "help", "redoc", "swagger"), "/docs"),
    **dict.fromkeys(("health", "ping", "status"), "/readyz"),
    **dict.fromkeys(("evaluate", "infer", "invocations", "loss", "predict"), "/score"),
}
"""The paths of other services, by their last part."""


def build_router(engine: ScoringEngine, metrics: Metrics, start: Start) -> APIRouter:
    """Return the routes that are not ``POST /score``."""
    router = APIRouter(generate_unique_id_function=lambda route: route.name)

    @router.get("/v1/losses", operation_id="losses_v1", summary="As /losses", tags=["scoring"])
    @router.get("/losses", summary="The losses, their parameters and formulas", tags=["scoring"])
    async def losses() -> list[LossRow]:
        return list_losses()

    @router.get("/version", summary="What is running", tags=["operation"])
    async def version() -> dict[str, str]:
        return {"name": "loss-scoring", "version": __version__}

    @router.get("/healthz", operation_id="healthz", summary="As /livez", tags=["operation"])
    @router.get("/livez", summary="Whether the process can serve", tags=["operation"])
    async def livez() -> dict[str, str]:
        check_live(engine)
        return {"status": "alive"}

    @router.get("/readyz", summary="Whether requests are taken", tags=["operation"])
    async def readyz() -> dict[str, str]:
        check_ready(engine, start)
        return {"status": "ready"}

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Prometheus metrics",
        tags=["operation"],
        response_class=Response,
    )
    async def metrics_() -> Response:
        text = await asyncio.to_thread(metrics.render) if metrics.shared else metrics.render()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    for path, file in FILES.items():
        router.add_api_route(path, _serve(file), include_in_schema=False)
    return router


def check_live(engine: ScoringEngine) -> None:
    """Raise ``OverloadedError`` unless the process can serve."""
    if engine.lost:
        raise OverloadedError("the device is lost; restart the process", reason="device-lost")


def check_ready(engine: ScoringEngine, start: Start) -> None:
    """Raise ``OverloadedError`` unless requests are taken."""
    start.check()
    if not engine.ready:
        raise OverloadedError(
            "the device worker is not ready: it starts, or is being replaced", reason="not-ready"
        )


def _serve(file: Path) -> Callable[[], Awaitable[Response]]:
    content = file.read_bytes()

    async def page() -> Response:
        return Response(content, media_type=TYPES[file.suffix], headers=HEADERS)

    return page


def list_losses() -> list[LossRow]:
    """Return what is known of each loss, as ``GET /losses`` answers."""
    return [
        LossRow(
            name=loss.name,
            title=loss.title,
            formula=loss.formula,
            gradient=loss.gradient,
            source=loss.source,
            parameters={name: schema_of(rule) for name, rule in loss.parameters.items()},
            can_be_masked=loss.can_be_masked,
            scaled=loss.scaled,
            default=loss.name in DEFAULT_LOSSES,
        )
        for loss in LOSSES.values()
    ]


class HeadMiddleware:
    """Routes HEAD as GET (RFC 9110, 9.3.2); the server leaves out the body of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its route becomes known in ``scope``."""
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")


async def answer_unmatched(request: Request, error: Exception) -> Response:
    """Answer OPTIONS with ``Allow``; else suggest the path or the method that was meant."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class
    method, path = request.method, request.url.path
    of_server = request.scope["path"] == "*"  # OPTIONS of no path in particular
    allowed = list(_METHODS) if of_server else _allowed(request.app.routes, path)
    if method == "OPTIONS" and allowed:
        return Response(status_code=204, headers={"Allow": ", ".join((*allowed, method))})
    headers = dict(error.headers or {})
    detail = f"{method} {path}: {error.detail}"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(allowed)
        detail = f"{method} is not served at {path}; send {' or '.join(allowed)}"
    elif error.detail != HTTPStatus(error.status_code).phrase:
        detail = error.detail  # of one of our routes
    elif error.status_code == 404:
        known = [*request.app.openapi()["paths"], "/", "/docs", "/openapi.json"]
        meant = _meant(path, known)
        hint = f"known are {', '.join(known)}"
        if meant is not None:
            hint = f"did you mean {_allowed(request.app.routes, meant)[0]} {meant}?"
        detail = f"there is no {path}; {hint}"
    request_id = request.scope[CONTEXT].request_id
    return problem(error.status_code, request_id, request.scope, detail=detail, headers=headers)


def _allowed(routes: Iterable[BaseRoute], path: str) -> list[str]:
    """Return the methods that some route takes at a path."""
    scope: dict[str, Any] = {"type": "http", "path": path, "root_path": ""}
    found = {
        method
        for method in _METHODS
        for route in routes
        if route.matches({**scope, "method": method})[0] == Match.FULL
    }
    if "GET" in found:
        found.add("HEAD")
    return [method for method in _METHODS if method in found]


def _meant(path: str, known: list[str]) -> str | None:
    """Return the known path that a path looks like."""
    last = path.strip("/ ").lower().rpartition("/")[2]
    if last in _ELSEWHERE:
        return _ELSEWHERE[last]
    close = get_close_matches(f"/{last[:100]}", known, 1)
    return close[0] if close else None

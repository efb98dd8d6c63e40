"""The small routes: the table of losses, probes and metrics."""

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from loss_scoring.core import LOSSES
from loss_scoring.service.api.start import Start
from loss_scoring.service.engine import Scorer
from loss_scoring.service.errors import OverloadedError
from loss_scoring.service.telemetry.metrics import Metrics


def build_router(engine: Scorer, metrics: Metrics, start: Start) -> APIRouter:
    """Return the routes that are not ``POST /score``."""
    router = APIRouter()

    @router.get("/losses", summary="The losses, their parameters and formulas")
    async def losses() -> list[dict[str, object]]:
        return [
            {
                "name": loss.name,
                "title": loss.title,
                "formula": loss.formula,
                "gradient": loss.gradient,
                "parameters": dict(loss.parameters),
            }
            for loss in LOSSES.values()
        ]

    @router.get("/livez", summary="Whether the process can serve, or only a new one could")
    async def livez() -> dict[str, str]:
        if engine.lost:
            raise OverloadedError("the device is lost; restart the process", reason="device-lost")
        return {"status": "alive"}

    @router.get("/readyz", summary="Whether a batch was scored and requests are taken")
    async def readyz() -> dict[str, str]:
        start.check()
        if not engine.ready:
            raise OverloadedError(
                "the device worker is not ready: it starts, or is being replaced",
                reason="not-ready",
            )
        return {"status": "ready"}

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics_() -> Response:
        text = await asyncio.to_thread(metrics.render) if metrics.shared else metrics.render()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router

"""Spans of requests and batches: in memory, and over real processes to a collector."""

import asyncio
import json
import logging
import subprocess
import sys
import threading

import httpx
import pytest
from family import wait_until
from instance import QUEUED, faulty, instance
from traffic import block, queued

from loss_scoring.service.app import create_app
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import traces
from loss_scoring.service.telemetry.traces import Tracing, tracing_from_environment

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SENDER}-01"
BODY = {"series": [{"id": "secret", "prediction": [1.0, 2.0], "target": [1.0, 4.0]}]}


class Traced:
    """An application in this process whose spans stay in memory."""

    def __init__(self, sampler=None, **settings):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)
        given = {"device": "cpu", "inline_elements": 0, "idle_inline_elements": 0, **settings}
        self.app = create_app(Settings(**given), tracing=self.tracing)

    def ask(self, *requests):
        """Send requests at the same time; return spans by their name."""

        async def main():
            async with lifespan(self.app):
                transport = httpx.ASGITransport(self.app)
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                    return await asyncio.gather(*(client.request(**one) for one in requests))

        self.answers = asyncio.run(main())
        found = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


class lifespan:  # noqa: N801 - it is used as a function
    def __init__(self, app):
        self._app, self._told = app, asyncio.Queue()
        self._done = {"startup": asyncio.Event(), "shutdown": asyncio.Event()}

    async def __aenter__(self):
        async def send(message):
            self._done[message["type"].split(".")[1]].set()

        scope = {"type": "lifespan", "path": "", "state": {}}
        self._task = asyncio.create_task(self._app(scope, self._told.get, send))
        await self._tell("startup")

    async def __aexit__(self, *_):
        await self._tell("shutdown")
        await self._task

    async def _tell(self, what):
        await self._told.put({"type": f"lifespan.{what}"})
        await self._done[what].wait()


def score(**changes):
    return {"method": "POST", "url": "/score", "json": BODY, **changes}


def test_a_request_is_a_child_of_its_sender_and_batches_link_to_it():
    spans = Traced().ask(score(headers={"traceparent": PARENT, "X-Request-Id": "mine"}))
    (request,), (batch,) = spans["POST /score"], spans["batch"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == SENDER
    assert request.kind is SpanKind.SERVER
    told = dict(request.attributes)
    assert told["http.response.status_code"] == 200
    assert told["loss_scoring.request_id"] == "mine"
    assert {f"loss_scoring.{stage}_s" for stage in ("decode", "queue", "compute", "encode")} <= (
        told.keys()
    )
    assert batch.parent is None
    (link,) = batch.links
    assert (link.context.trace_id, link.context.span_id) == (
        request.context.trace_id,
        request.context.span_id,
    )
    assert batch.attributes["loss_scoring.elements"] == 2
    assert request.start_time <= batch.start_time <= batch.end_time <= request.end_time + 10**6


def test_a_batch_links_to_each_request_in_it_and_no_other():
    spans = Traced().ask(*(score() for _ in range(20)))
    requests = {span.context.span_id for span in spans["POST /score"]}
    linked = [link.context.span_id for batch in spans["batch"] for link in batch.links]
    assert len(requests) == len(linked) == 20
    assert set(linked) == requests


def test_a_trace_that_makes_no_sense_is_no_reason_to_lose_the_device():
    traced = Traced()
    traced.tracing.batch(["", "00-x-y-z", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", None], 3, 0.1)
    assert traced.exporter.get_finished_spans() == ()


def test_refusals_and_failures_say_why_and_nothing_is_said_of_bodies_or_queries():
    traced = Traced()
    spans = traced.ask(
        score(url="/score?token=secret", headers={"Authorization": "Bearer secret"}),
        {"method": "GET", "url": "/losses"},
        {"method": "GET", "url": "/nowhere-secret"},
        {"method": "GET", "url": "/readyz"},
    )
    (refused,) = spans["POST /score"]
    assert refused.attributes["error.type"] == "invalid"
    assert refused.status.status_code is StatusCode.UNSET, "it is the client's error"
    assert spans.keys() == {"POST /score", "GET /losses", "GET none"}
    text = "".join(span.to_json() for span in traced.exporter.get_finished_spans())
    assert "secret" not in text.replace("/nowhere-secret", "")


def test_an_unsampled_request_leaves_nothing():
    unsampled = PARENT[:-1] + "0"
    assert Traced(ALWAYS_OFF).ask(score()) == {}
    assert Traced().ask(score(headers={"traceparent": unsampled})) == {}


def test_what_is_no_traceparent_begins_a_trace():
    (request,) = Traced().ask(score(headers={"traceparent": "nonsense"}))["POST /score"]
    assert request.parent is None


def test_lines_of_the_log_name_the_trace(caplog):
    from loss_scoring.service.telemetry.logs import JsonFormatter

    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(JsonFormatter("test").format(record)))

    logger, keep = logging.getLogger("service.access"), Keep()
    logger.addHandler(keep)
    try:
        with caplog.at_level(logging.INFO, "service.access"):
            spans = Traced(access_log=True).ask(score(headers={"traceparent": PARENT}))
    finally:
        logger.removeHandler(keep)
    (line,), (span,) = lines, spans["POST /score"]
    assert line["trace_id"] == TRACE
    assert line["span_id"] == f"{span.context.span_id:016x}"


def test_spans_of_all_processes_share_a_trace(monkeypatch):
    from collector import Collector

    with Collector() as collector:
        given = {"EXPORTER_OTLP_ENDPOINT": collector.url, "BSP_SCHEDULE_DELAY": "50"}
        for name, value in {**given, "RESOURCE_ATTRIBUTES": "team=forecast"}.items():
            monkeypatch.setenv(f"OTEL_{name}", value)
        with instance(faulty(1), frontends=1, device="cpu", **QUEUED) as service:

            async def main():
                first = await block(service)
                async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
                    headers = {"traceparent": PARENT}
                    traced = [client.post("/score", json=BODY, headers=headers) for _ in range(2)]
                    waiting = [asyncio.create_task(one) for one in traced]
                    await queued(service, 4)
                    service.gate.unlink()
                    await asyncio.gather(first, *waiting)

            asyncio.run(main())
            trace = bytes.fromhex(TRACE)
            requests = wait_until(lambda: _of(collector, trace, 2))
            linked = wait_until(lambda: _linked(collector, trace))
    assert {span.parent_span_id.hex() for span in requests} == {SENDER}
    assert linked == {span.span_id for span in requests}, "both in one batch of the worker"
    resources = {
        attribute.key: attribute.value.string_value
        for resource, _ in collector.spans
        for attribute in resource.attributes
    }
    assert resources["service.name"] == "loss-scoring"
    assert resources["team"] == "forecast"


def _of(collector, trace, count):
    found = [span for _, span in collector.spans if span.trace_id == trace]
    return found if len(found) >= count else None


def _linked(collector, trace):
    for _, span in list(collector.spans):
        links = {link.span_id for link in span.links if link.trace_id == trace}
        if span.name == "batch" and links:
            return links
    return None


@pytest.mark.parametrize(
    ("environment", "traced"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "no-such-exporter"}, False),
    ],
)
def test_the_environment_decides(environment, traced, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = tracing_from_environment()
    assert (made is not None) == traced
    if made is not None:
        made._provider.shutdown()


def test_without_being_asked_the_sdk_is_not_imported():
    script = (
        "import sys; import loss_scoring.service.app\n"
        "from loss_scoring.service.telemetry.traces import tracing_from_environment\n"
        "assert tracing_from_environment() is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_dead_collector_holds_no_end_up(monkeypatch):
    class Provider:
        def get_tracer(self, _name):
            return None

        def force_flush(self, _limit_ms):
            threading.Event().wait()

    monkeypatch.setattr(traces, "_FLUSH_MS", 1)
    Tracing(Provider()).flush()

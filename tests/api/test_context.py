"""The last guard: whatever an application raises, the client gets a problem and a request id."""

import asyncio
import logging

import pytest
from starlette.requests import ClientDisconnect

from loss_scoring.service.api import score
from loss_scoring.service.api.context import ContextMiddleware
from loss_scoring.service.api.start import Start
from loss_scoring.service.app import create_app
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics


def serve(app, headers=()):
    """Run one request through the middleware; return what was sent and the metrics."""
    sent, metrics = [], Metrics()
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": list(headers)}

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(ContextMiddleware(app, metrics, Settings())(scope, receive, send))
    return sent, metrics.render().decode()


def test_an_unexpected_error_is_logged_and_answered_without_its_text(caplog):
    async def app(scope, receive, send):
        raise RuntimeError("secret")

    with caplog.at_level(logging.ERROR):
        sent, metrics = serve(app, [(b"x-request-id", b"abc")])
    assert sent[0]["status"] == 500
    assert (b"x-request-id", b"abc") in sent[0]["headers"]
    assert b"secret" not in sent[1]["body"]
    assert b'"request_id":"abc"' in sent[1]["body"]
    assert "secret" in caplog.text
    assert "abc" in caplog.text
    assert 'status="500"} 1.0' in metrics


def test_an_error_after_the_answer_began_closes_the_connection():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        serve(app)


async def cancelled(app):
    """Run a request until it waits, and cancel it as the end of a drain does."""
    sent, metrics = [], Metrics()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"x-request-id", b"abc")]}
    task = asyncio.create_task(ContextMiddleware(app, metrics, Settings())(scope, None, send))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task, sent, metrics.render().decode()


def test_a_request_that_the_end_of_a_drain_cuts_off_may_be_sent_again(caplog):
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR):
        task, sent, metrics = asyncio.run(cancelled(app))
    assert not task.cancelled(), "the server would log it, with a stack trace"
    assert task.exception() is None
    assert caplog.text == ""
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 503
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"retry-after"] == b"5"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-request-id"] == b"abc"
    assert b'"retryable":true' in sent[1]["body"]
    assert 'reason="not-ready"} 1.0' in metrics


def test_an_answer_that_the_end_of_a_drain_cuts_in_two_closes_the_connection():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    task, sent, _ = asyncio.run(cancelled(app))
    assert task.cancelled()
    assert len(sent) == 1


def test_a_client_that_left_is_counted_and_not_answered():
    async def app(scope, receive, send):
        raise ClientDisconnect

    sent, metrics = serve(app)
    assert sent == []
    assert 'status="499"} 1.0' in metrics


def test_ids_that_are_made_differ():
    async def endpoint(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    middleware, ids = ContextMiddleware(endpoint, Metrics(), Settings()), set()

    async def send(message):
        headers = dict(message["headers"])
        assert headers[b"server-timing"].startswith(b"total;dur=")
        ids.add(headers[b"x-request-id"])

    for given in (b"", b"not sane\n", b"x" * 129):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/x",
            "headers": [(b"x-request-id", given)],
        }
        asyncio.run(middleware(scope, None, send))
    assert len(ids) == 3
    assert all(len(request_id) == 32 for request_id in ids)


@pytest.mark.parametrize("path", ["/metrics", "/score"])
def test_an_unexpected_error_of_any_route_is_a_problem(path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(Metrics, "render", broken)
    monkeypatch.setattr(score, "negotiate", broken)
    start = Start()
    start.done = True
    app, sent = create_app(Settings(), start=start), []
    scope = {
        "type": "http",
        "method": "POST" if path == "/score" else "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"x-request-id", b"abc")],
    }

    async def send(message):
        sent.append(message)

    with caplog.at_level(logging.ERROR):
        asyncio.run(app(scope, None, send))
    assert sent[0]["status"] == 500
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"abc"
    assert b"secret" not in sent[1]["body"]
    assert "secret" in caplog.text


def test_what_is_not_http_passes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    middleware = ContextMiddleware(app, Metrics(), Settings())
    asyncio.run(middleware({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]

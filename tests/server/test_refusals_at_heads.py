"""While memory is scarce, a request that does not fit is refused at its head, and costs no task."""

import json

import pytest
import uvicorn
from fake_connection import Loop, Transport
from scrape import total
from uvicorn.server import ServerState

from loss_scoring.service.app import create_app
from loss_scoring.service.server.protocol import State, bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

MEBI = 1 << 20
KEY = "a-key-0123456789"
LIMITS = {"max_open_bytes": 16 * MEBI, "max_body_bytes": 8 * MEBI, "max_json_bytes": 8 * MEBI}
BODY = b"x" * 80_000


class Service:
    """One connection to a service whose memory others fill; requests that it admits wait."""

    def __init__(self, **settings):
        self.metrics, settings = Metrics(), Settings(**LIMITS, **settings)
        app = create_app(settings, metrics=self.metrics)
        self.memory = app._admission.memory
        self.loop, self.transport = Loop(), Transport()
        class_ = bounded(settings, self.metrics, app)
        config = uvicorn.Config(app, log_config=None)
        self.protocol = class_(config, ServerState(), {}, self.loop)
        self.protocol.connection_made(self.transport)

    def fill(self, left):
        for n in range(100):
            free = LIMITS["max_open_bytes"] - self.memory.held
            if free <= left:
                break
            self.memory.take(f"other {n}", min(int(free * 0.79), free - left) or 1)

    def send(self, *headers, body=BODY, content_type=b"application/json", path=b"/score"):
        fields = (b"Content-Type: " + content_type, b"Content-Length: %d" % len(body), *headers)
        head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(fields)
        self.transport.written = b""
        self.protocol.data_received(head + b"\r\n\r\n" + body)

    def refusal(self):
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        return (
            int(status.split()[1]),
            dict(line.split(": ", 1) for line in fields),
            json.loads(body),
        )

    @property
    def is_served(self):
        return self.protocol.cycle is not None


@pytest.fixture
def service():
    made = Service()
    made.fill(left=50_000)
    return made


def test_it_carries_what_every_refusal_does(service):
    service.send(b"X-Request-Id: mine-1")
    status, headers, document = service.refusal()
    assert status == document["status"] == 503
    assert headers["x-request-id"] == document["request_id"] == "mine-1"
    assert headers["content-type"] == "application/problem+json"
    assert 1 <= int(headers["retry-after"]) <= 30
    assert headers["server-timing"].startswith("total;dur=")
    assert document["retryable"] is True
    assert not service.is_served
    text = service.metrics.render().decode()
    assert (
        total(text, "loss_scoring_requests_total", route="/score", status="503", format="json") == 1
    )
    assert total(text, "loss_scoring_refusals_total", reason="memory-full") == 1


def test_it_is_the_same_with_a_version():
    service = Service(access_log=True)
    service.fill(left=50_000)
    service.send(path=b"/v1/score")
    assert service.refusal()[0] == 503
    text = service.metrics.render().decode()
    assert total(text, "loss_scoring_requests_total", route="/score", status="503") == 1
    service.send(path=b"/v2/score")
    assert service.is_served


def test_its_body_is_skipped_and_the_next_request_is_answered(service):
    service.send()
    assert service.refusal()[0] == 503
    service.send(body=b"{}")
    assert service.is_served
    assert service.transport.written == b""
    assert service.protocol.scope["headers"][2] == (b"content-length", b"2")


def test_requests_that_are_pipelined_are_refused_in_turn(service):
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 80000\r\n\r\n"
    for n in range(0, len(stream := (head + BODY) * 3), 7000):
        service.protocol.data_received(stream[n : n + 7000])
        service.loop.pass_time(0)
    assert service.transport.written.count(b"HTTP/1.1 503 ") == 3


def test_a_body_that_does_not_end_is_cut_off(service):
    service.send(body=BODY)
    service.protocol.data_received(
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\nx"
    )
    service.loop.pass_time(service.protocol.deadlines[State.BODY] + 2)
    assert service.transport.aborted


def test_a_client_whose_requests_hold_too_much_is_refused_with_429():
    service = Service()
    service.fill(left=150_000)
    service.memory.take("", 100_000)
    service.send()
    assert service.refusal()[0] == 429


@pytest.mark.parametrize(
    "request_",
    [
        {"body": b"{}"},  # fits
        {"content_type": b"text/csv"},  # 415
        {"body": b"x" * (9 * MEBI)},  # 413
        {"path": b"/losses"},  # 405
    ],
)
def test_what_fits_or_is_wrong_otherwise_is_left_to_the_application(service, request_):
    service.send(**request_)
    assert service.is_served
    assert service.transport.written == b""


@pytest.mark.parametrize("header", [b"Expect: 100-continue", b"Connection: close"])
def test_a_connection_that_must_be_closed_with_care_is_left_to_the_application(service, header):
    service.send(header)
    assert service.is_served


def test_while_memory_is_ample_nothing_is_decided_at_the_head():
    service = Service()
    service.send()
    assert service.is_served
    assert service.transport.written == b""


@pytest.mark.parametrize(
    ("key", "is_served"), [(KEY, False), ("another-0123456789", True), (None, True)]
)
def test_without_a_valid_key_the_application_answers(key, is_served):
    service = Service(api_keys=KEY)
    service.fill(left=50_000)
    service.send(*([b"Authorization: Bearer " + key.encode()] if key else []))
    assert service.is_served == is_served


def test_pages_of_other_origins_may_read_it():
    service = Service(cors_origins="https://app.example")
    service.fill(left=50_000)
    service.send(b"Origin: https://app.example")
    assert service.refusal()[1]["access-control-allow-origin"] == "https://app.example"


def test_it_is_in_the_access_log(caplog):
    service = Service(access_log=True)
    service.fill(left=50_000)
    with caplog.at_level("INFO", "service.access"):
        service.send()
    assert [record.message for record in caplog.records] == ["POST /score 503"]
    assert caplog.records[0].fields["reason"] == "memory-full"

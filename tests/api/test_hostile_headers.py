"""Whatever a header or a target holds, it is served or refused by name: no 500, no stack trace."""

import asyncio
import json
import logging
import re

import pytest
import uvicorn
from fake_connection import Transport
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from uvicorn.server import ServerState

from loss_scoring.service.app import create_app
from loss_scoring.service.server.protocol import bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.traces import Tracing

KEY = "a-key-0123456789"
BODY = b'{"series":[{"prediction":[1,2],"target":[1,3]}]}'
FIELDS = {
    b"Host": [b"x", b"[::1]", b"[1]", b"[", b"a:b"],
    b"Content-Type": [b"application/json", b"application/vnd.apache.arrow.stream", b"application/json;charset", b";=;"],
    b"Content-Encoding": [b"gzip", b"zstd", b"gzip, gzip", b"identity"],
    b"Content-Length": [b"%d" % len(BODY), b"0" * 5000 + b"%d" % len(BODY), b"18446744073709551615", b"9" * 18],
    b"Accept": [b"*/*", b"application/json;q=nan", b"application/*;q=inf, */*;q=-1", b"text/csv", b"*/*;q=1e999"],
    b"Expect": [b"100-continue", b"200-ok"],
    b"Transfer-Encoding": [b"chunked", b"gzip, chunked"],
    b"Connection": [b"close", b"upgrade", b"keep-alive, close"],
    b"Upgrade": [b"h2c", b"websocket"],
    b"X-Request-Id": [b"mine-1", b"x" * 129, b"<script>"],
    b"X-Request-Timeout-Ms": [b"1000", b"0" * 5000 + b"1000", b"9" * 5000, b"\xb2", b"1_0", b"1e3"],
    b"Authorization": [b"Bearer " + KEY.encode(), b"Bearer", b"Basic eDp5", b"bearer \xff"],
    b"Origin": [b"https://app.example", b"null", b"\xff"],
    b"Access-Control-Request-Method": [b"POST"],
    b"Access-Control-Request-Headers": [b"authorization", b"\xff\t", b"a," * 9000],
    b"traceparent": [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"00-" + b"0" * 32, b"\xff"],
    b"tracestate": [b"a=b", b"a=" * 300, b"," * 300],
    b"baggage": [b"a=b;c", b"%ff=%zz,=", b"a=" + b"b" * 9000],
    b"Cookie": [b"a=b; " * 3000],
    b"Accept-Encoding": [b"gzip;q=0", b"*"],
    b"Range": [b"bytes=0-1"],
    b"If-None-Match": [b"*"],
    b"X-Forwarded-For": [b"\xff, 1.2.3.4"],
}  # fmt: skip
VALUES = st.one_of(
    st.binary(max_size=40).map(lambda text: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", text)),
    st.builds(
        lambda part, count: part * count,
        st.sampled_from([b"0", b"9", b",", b";", b"=", b'"', b"\xff", b"\t", b"a;", b"%41"]),
        st.sampled_from([1, 300, 5000]),
    ),
)
HEADER = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(FIELDS[name]) | VALUES)
)
TARGETS = st.sampled_from(
    [b"/score", b"/score", b"/losses", b"/metrics", b"/livez", b"/openapi.json", b"/nowhere", b"*", b"//[", b"/%ff%00",
     b"http://[/", b"http://x", b"/" * 5000, b"/score/"]
)  # fmt: skip
QUERIES = st.sampled_from(
    [b"", b"", b"?losses=mae", b"?losses=%ff", b"?a[]=%zz&&=&", b"?gradients=" + b"1" * 5000, b"?group_columns=a", b"?%00",
     b"?target_column=%F0%9F&time_column=", b"?" + b"a&" * 9000]
)  # fmt: skip
METHODS = st.sampled_from([b"POST", b"POST", b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PATCH"])


class Service:
    """The application behind its protocol, in an event loop that runs while a request is served."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        options = Settings(cors_origins="https://app.example", api_keys=KEY, access_log=True)
        metrics = Metrics()
        app = create_app(options, metrics=metrics, tracing=Tracing(TracerProvider()))
        self.config = uvicorn.Config(app, log_config=None)
        self.config.load()
        self.protocol = bounded(options, metrics, app)
        self.events, started = asyncio.Queue(), asyncio.Event()

        async def note(_message):
            started.set()

        self.living = self.loop.create_task(app({"type": "lifespan"}, self.events.get, note))
        self.events.put_nowait({"type": "lifespan.startup"})
        self.loop.run_until_complete(asyncio.wait_for(started.wait(), 240))

    def send(self, data):
        """Return what a client that sends ``data`` and goes away gets."""
        transport = Transport()

        async def main():
            served = self.protocol(self.config, ServerState(), {}, asyncio.get_running_loop())
            served.connection_made(transport)
            served.data_received(data)
            for _ in range(3):  # a long head leaves the rest to another turn
                await asyncio.sleep(0)
            if served.tasks:
                await asyncio.wait(served.tasks, timeout=30 if served._is_serving() else 0.01)
            served.connection_lost(ConnectionResetError())
            await asyncio.gather(*served.tasks)

        self.loop.run_until_complete(main())
        return transport.written

    def stop(self):
        self.events.put_nowait({"type": "lifespan.shutdown"})
        self.loop.run_until_complete(self.living)
        self.loop.close()


@pytest.fixture(scope="module")
def service():
    made = Service()
    yield made
    made.stop()


GOOD = [
    (b"Host", b"x"),
    (b"Content-Type", b"application/json"),
    (b"Authorization", b"Bearer " + KEY.encode()),
    (b"Content-Length", b"%d" % len(BODY)),
]


def statuses(service, caplog, method, target, headers):
    """Return the statuses of the answers to a request; fail if one is not of this service."""
    names = {name for name, _ in headers}
    fields = [*(field for field in GOOD if field[0] not in names), *headers]
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    caplog.clear()
    answer = service.send(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, lines, BODY))
    found = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
    assert b"Traceback" not in answer
    assert 500 not in found
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    for part in re.split(rb"(?=HTTP/1\.1 \d{3} )", answer):
        head, _, content = part.partition(b"\r\n\r\n")
        if b"application/problem+json" in head and content:
            assert json.loads(content)["detail"]
            assert f"x-request-id: {json.loads(content)['request_id']}".encode() in head
    return found


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(METHODS, TARGETS, QUERIES, st.lists(HEADER, max_size=4))
@example(b"POST", b"/score", b"", [])
def test_heads(service, caplog, method, target, query, headers):
    found = statuses(service, caplog, method, target + query, headers)
    assert len(found) <= 3, "one, a go-ahead, and one for the body if its length was changed"


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in FIELDS.items() for v in values]
)
def test_each_value_beside_a_good_request(service, caplog, name, value):
    found = statuses(service, caplog, b"POST", b"/score", [(name, value)])
    assert found or name in {b"Content-Length", b"Transfer-Encoding"}


def test_a_good_request(service, caplog):
    assert statuses(service, caplog, b"POST", b"/score", []) == [200]
    padded = [
        (b"X-Request-Timeout-Ms", b"0" * 5000 + b"1000"),
        (b"Content-Length", b"0" * 5000 + b"48 "),
    ]
    assert statuses(service, caplog, b"POST", b"/score", padded) == [200]

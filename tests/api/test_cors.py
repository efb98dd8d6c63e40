"""Pages of other origins may call where a setting says so, and read every answer."""

import socket

import httpx
import pytest
from fake_connection import Loop, Transport, connected
from instance import instance
from wire import ARROW

from loss_scoring.service.api.cors import Cors
from loss_scoring.service.settings import Settings

ORIGIN, OTHER = "https://app.example", "https://evil.example"
GOOD = {"losses": ["mae"], "series": [{"prediction": [1.0], "target": [2.0]}]}
KEY = "0123456789abcdef"
ALLOW, EXPOSE = "access-control-allow-origin", "access-control-expose-headers"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-request-timeout-ms",
}


@pytest.fixture(scope="module", params=[0, 1], ids=["one process", "front ends"])
def origins(request):
    return {
        "frontends": request.param,
        "device": "cpu",
        "cors_origins": f"http://localhost:3000, {ORIGIN}",
    }


@pytest.fixture(scope="module")
def running(origins):
    with instance(api_keys=KEY, max_elements=4, max_queued_elements=8, **origins) as running:
        yield running


@pytest.fixture
def page(running):
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=30) as client:
        yield client


def assert_readable(answer, origin=ORIGIN):
    assert answer.headers[ALLOW] == origin
    assert {"X-Request-Id", "Server-Timing", "Retry-After"} <= set(
        answer.headers[EXPOSE].split(", ")
    )
    assert "Origin" in answer.headers["vary"].split(", ")
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_needs_no_key_and_allows_what_it_asks_for(page):
    answer = httpx.options(f"{page.base_url}/score", headers=PREFLIGHT)
    assert answer.status_code == 204
    assert_readable(answer)
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    assert (
        answer.headers["access-control-allow-headers"]
        == PREFLIGHT["Access-Control-Request-Headers"]
    )
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (200, {"json": GOOD}),
        (400, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (400, {"content": b"{", "headers": {"Content-Type": ARROW}}),
        (401, {"json": GOOD, "headers": {"Authorization": ""}}),
        (401, {"json": GOOD, "headers": {"Authorization": "Bearer fedcba9876543210"}}),
        (406, {"json": GOOD, "headers": {"Accept": "text/csv"}}),
        (413, {"json": {"series": [{"prediction": [1.0] * 5, "target": [1.0] * 5}]}}),
        (415, {"content": b"{}"}),
        (422, {"json": {}}),
    ],
)
def test_every_answer_can_be_read(page, status, sent):
    answer = page.post("/score", **sent)
    assert answer.status_code == status
    assert_readable(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/score", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/livez", 200),
        ("HEAD", "/losses", 200),
    ],
)
def test_answers_of_other_paths_can_be_read(page, method, path, status):
    answer = page.request(method, path)
    assert answer.status_code == status
    assert_readable(answer)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nHost: x\r\nA : b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nA: "
        + b"b" * 40_000
        + b"\r\n\r\n",
    ],
)
def test_refusals_of_a_head_can_be_read(running, head):
    with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"access-control-allow-origin: https://app.example\r\n" in answer


def test_other_origins_cannot_read(page):
    for answer in (
        page.post("/score", json=GOOD, headers={"Origin": OTHER}),
        page.options("/score", headers=PREFLIGHT | {"Origin": OTHER}),
        httpx.get(f"{page.base_url}/livez", timeout=60),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" in answer.headers["vary"].split(", ")


def test_any_origin_can_read_where_the_setting_is_a_star():
    with instance(cors_origins="*", device="cpu") as running:
        for answer in (
            httpx.post(f"{running.url}/score", json=GOOD, headers={"Origin": OTHER}, timeout=60),
            httpx.options(f"{running.url}/score", headers=PREFLIGHT),
        ):
            assert answer.headers[ALLOW] == "*"
            assert "Origin" not in answer.headers.get("vary", "")
        assert (
            answer.headers["access-control-allow-headers"]
            == PREFLIGHT["Access-Control-Request-Headers"]
        )


def test_no_headers_without_the_setting(client):
    for answer in (
        client.post("/score", json=GOOD, headers={"Origin": ORIGIN}),
        client.options("/score", headers=PREFLIGHT),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" not in answer.headers.get("vary", "")


def test_a_refused_head_gets_no_headers_without_the_setting():
    transport = Transport()
    protocol = connected(Loop(), transport)
    protocol.data_received(
        b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nA : b\r\n\r\n"
    )
    assert b"access-control" not in transport.written


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://a.example",
        "http://localhost:3000 ,\thttps://a",
        "http://[::1]:8080",
        "chrome-extension://abc",
    ],
)
def test_valid_origins(text):
    assert Cors.of(Settings(cors_origins=text)) is not None


@pytest.mark.parametrize("text", ["", " , ", None])
def test_no_origin_is_none(text):
    assert Cors.of(Settings(cors_origins=text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/",
        "https://a.example/x",
        "a.example",
        "https://A.example",
        "https://*.a.example",
        "null",
        "https://a;https://b",
    ],
)
def test_invalid_origins_are_refused_by_name(text):
    with pytest.raises(ValueError, match="is not an origin as browsers send it") as refused:
        Settings(cors_origins=f"https://b.example,{text}")
    assert repr(text) in str(refused.value)

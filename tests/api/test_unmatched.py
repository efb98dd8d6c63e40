"""HEAD and OPTIONS of every path, and the answers to unknown paths and methods."""

import socket

import httpx
import pytest
from instance import instance
from test_errors import JSON, problem
from wire import ARROW

GET_PATHS = [
    *("/livez", "/healthz", "/readyz", "/metrics"),
    *("/losses", "/v1/losses", "/version", "/docs", "/openapi.json", "/", "/page/page.js"),
]
CHANGES = {"date", "x-request-id", "server-timing"}


@pytest.fixture(scope="module", params=[0, 1], ids=["one process", "front ends"])
def running(request):
    with (
        instance(frontends=request.param, device="cpu") as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        yield client


def stable(answer):
    """Return the headers that do not change from request to request."""
    kept = {name: value for name, value in answer.headers.items() if name not in CHANGES}
    if answer.url.path == "/metrics":
        assert int(kept.pop("content-length")) > 1000
    return kept


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_is_get_without_a_body(running, path):
    get, head = running.get(path), running.head(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert stable(head) == stable(get)
    assert set(head.headers) >= CHANGES


def test_nothing_follows_the_answer_to_head(running):
    with socket.create_connection((running.base_url.host, running.base_url.port), 10) as connection:
        connection.sendall(
            b"HEAD /losses HTTP/1.1\r\nHost: x\r\n\r\n" * 2
            + b"HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    heads = answer.split(b"\r\n\r\n")
    assert [head[:15] for head in heads] == [b"HTTP/1.1 200 OK"] * 3 + [b""]


def test_head_is_counted_with_its_route(running):
    running.head("/losses")
    assert (
        'requests_total{format="none",route="/losses",status="200"}' in running.get("/metrics").text
    )


def test_head_of_what_get_does_not_answer(running):
    assert running.head("/nowhere").status_code == 404
    refused = running.head("/score")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        *((path, "GET, HEAD, OPTIONS") for path in GET_PATHS),
        *((path, "POST, OPTIONS") for path in ("/score", "/v1/score")),
    ],
)
def test_options_says_what_a_path_takes(running, path, allow):
    answer = running.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allow, b"")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_options_of_the_server_and_of_nothing(running):
    with socket.create_connection((running.base_url.host, running.base_url.port), 10) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"allow: GET, HEAD, POST, OPTIONS" in answer
    problem(running.options("/nowhere"), 404)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/score/", "POST /score?"),
        ("/scores", "POST /score?"),
        ("/Score", "POST /score?"),
        ("/v3/score", "POST /score?"),
        ("/api/score/", "POST /score?"),
        ("//score", "POST /score?"),
        ("/predict", "POST /score?"),
        ("/livez/", "GET /livez?"),
        ("/health", "GET /readyz?"),
        ("/healthz/", "GET /healthz?"),
        ("/ready", "GET /readyz?"),
        ("/metric", "GET /metrics?"),
        ("/ui/", "GET /?"),
        ("/swagger", "GET /docs?"),
        ("/openapi.yaml", "GET /openapi.json?"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_misspelt_path_gets_a_suggestion(client, method, path, meant):
    answer = client.request(method, str(client.base_url).rstrip("/") + path)
    detail = problem(answer, 404)["detail"]
    assert detail == f"there is no {path}; did you mean {meant}"


def test_any_other_path_gets_the_list_of_paths(client):
    detail = problem(client.get("/wp-login.php"), 404)["detail"]
    assert all(path in detail for path in [*GET_PATHS[:-1], "/score", "/v1/score"])
    problem(client.get("/" + "x" * 20_000), 404)


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/score", "GET is not served at /score; send POST"),
        ("PUT", "/score?losses=mae", "PUT is not served at /score; send POST"),
        ("POST", "/losses", "POST is not served at /losses; send GET or HEAD"),
        ("POST", "/", "POST is not served at /; send GET or HEAD"),
        ("DELETE", "/docs", "DELETE is not served at /docs; send GET or HEAD"),
    ],
)
def test_another_method_gets_those_that_are_allowed(client, method, path, says):
    assert problem(client.request(method, path), 405)["detail"] == says


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (None, "Content-Type is missing; it must be application/json or"),
        ("application/x-www-form-urlencoded", "not a form"),
        ("multipart/form-data; boundary=x", "not a form"),
        ("application/vnd.apache.parquet", "Parquet is not read over HTTP"),
        ("Application/X-Parquet", "Parquet is not read over HTTP"),
        ("application/vnd.apache.arrow.file", "write a stream"),
        ("application/vnd.apache.arrow", f"did you mean {ARROW}?"),
        ("text/json; charset=utf-8", "did you mean application/json?"),
        ("application/x-ndjson", "one JSON document"),
        ("text/csv", "CSV is not read over HTTP"),
        ("application/xml", "not 'application/xml'"),
    ],
)
def test_another_content_type_is_named_with_those_that_are_known(client, sent, says):
    headers = {} if sent is None else {"Content-Type": sent}
    detail = problem(client.post("/score", content=b"{}", headers=headers), 415)["detail"]
    assert says in detail
    assert JSON["Content-Type"] in detail
    assert ARROW in detail
    assert sent is None or repr(sent) in detail


def test_accept_is_named(client):
    answer = client.post("/score", json={"series": []}, headers={"Accept": "text/csv"})
    assert problem(answer, 406)["detail"].startswith("Accept is 'text/csv' and allows neither of ")


def test_an_accept_that_costs_more_than_it_says_is_refused(client):
    accept = "," * 1024 + "application/json"
    answer = client.post("/score", json={"series": []}, headers={"Accept": accept})
    assert problem(answer, 406)["detail"] == "Accept is longer than 1024 bytes"


def test_parameters_that_cost_more_than_they_say_are_refused(client):
    answer = client.post("/score?" + "a&" * 256, json={"series": []})
    assert problem(answer, 422)["detail"] == "the query has more than 256 parameters"

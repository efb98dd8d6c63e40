"""A real server's log: each line parses, names its request, and holds no secret."""

import io
import json
import logging
import re
import socket
import subprocess
import sys

import httpx
import pytest
from conftest import LOSS_SCORING, serving
from family import wait_until
from instance import QUEUED, faulty, instance

from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import REQUEST
from loss_scoring.service.telemetry.logs import JsonFormatter, TextFormatter, configure

KEY, SECRET = "a-key-that-nobody-may-see", "never-log-this"
FIELDS = {"time", "level", "logger", "message", "role", "pid"}


def lines_of(text):
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert line.keys() >= FIELDS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    return lines


@pytest.fixture(scope="module")
def log():
    """The whole log of a server that served, refused and failed, and what was asked."""
    printed = io.StringIO()
    given = {"API_KEYS": KEY, "ACCESS_LOG": "true", "MAX_HEADER_BYTES": "2000"}
    environment = {f"LOSS_SCORING_{name}": value for name, value in given.items()}
    stderr, sys.stderr = sys.stderr, printed
    try:
        with serving(LOSS_SCORING, "serve", **environment) as url:
            headers = {"Authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                good = {"series": [{"id": SECRET, "prediction": [1], "target": [1]}]}
                bad = {"series": [{"id": SECRET, "prediction": [1], "target": [SECRET]}]}
                for name, body in {"good": good, "bad": bad}.items():
                    client.post(
                        f"/score?token={SECRET}" if name == "bad" else "/score",
                        json=body, headers={"X-Request-Id": name},
                    )  # fmt: skip
            wrong = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": "stranger"}
            httpx.post(f"{url}/score", headers=wrong, timeout=60)
            host, port = url.rpartition("/")[2].split(":")
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(
                    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + SECRET.encode() * 300 + b"\r\n\r\n"
                )
                assert b" 431 " in raw.recv(4096)
    finally:
        sys.stderr = stderr
    return printed.getvalue()


def test_each_line_parses_and_access_lines_describe_requests(log):
    access = {
        line["request_id"]: line for line in lines_of(log) if line["logger"] == "service.access"
    }
    assert access["good"]["status"] == 200
    assert access["good"]["format"] == "json"
    assert 0 < access["good"]["seconds"] < 60
    assert access["bad"]["status"] == 422
    assert access["bad"]["reason"] == "invalid"
    assert access["stranger"]["reason"] == "unknown-key"
    assert {access[name]["path"] for name in ("good", "bad", "stranger")} == {"/score"}


def test_uvicorn_and_refusals_before_a_request_are_in_it(log):
    lines = lines_of(log)
    assert any("uvicorn" in line["logger"] and "running" in line["message"] for line in lines)
    (refused,) = [line for line in lines if line.get("reason") == "head-too-large"]
    assert refused["status"] == 431
    assert len(refused["request_id"]) == 32


def test_neither_keys_nor_bodies_nor_queries_are_logged(log):
    assert KEY not in log
    assert SECRET not in log


def test_supervisor_front_end_and_worker_write_the_same_lines():
    with (
        instance(faulty(1), frontends=1, device="cpu", access_log=True, **QUEUED) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        client.post("/score", json={}, headers={"X-Request-Id": "mine"})
        poison = {"series": [{"prediction": [666.0], "target": [1.0]}]}
        failed = client.post("/score", json=poison, headers={"X-Request-Id": "failed"})
        assert failed.status_code == 500
        # The line of an answer is written after it.
        lines = wait_until(
            lambda: '"failed"' in service.log_text() and lines_of(service.log_text())
        )
    assert {line["role"] for line in lines} >= {"supervisor", "frontend"}
    assert len({line["pid"] for line in lines}) >= 2
    by_id = {line["request_id"]: line for line in lines if "request_id" in line}
    assert by_id["mine"]["status"] == 422
    assert by_id["failed"]["status"] == 500


def record(**extra):
    made = logging.LogRecord("a.b", logging.WARNING, __file__, 1, "x %s", ("y\n",), None)
    vars(made).update(extra)
    return made


def test_a_line_stays_one_whatever_is_in_it():
    error = ValueError("lone surrogate \ud800, NUL \0 and\nlines")
    made = record(exc_info=(ValueError, error, None))
    line = JsonFormatter("test").format(made)
    assert "\n" not in line
    assert json.loads(line)["exception"].startswith("ValueError: lone")
    strange = record(msg="\ud800", args=())
    assert json.loads(JsonFormatter("test").format(strange))["level"] == "warning"


def test_text_ends_with_the_request():
    formatter = TextFormatter("%(levelname)s %(message)s")
    assert formatter.format(record(args=("y",))) == "WARNING x y"
    token = REQUEST.set({"request_id": "abc"})
    try:
        assert formatter.format(record(args=("y",))) == "WARNING x y [abc]"
        assert formatter.format(record(args=("abc",))) == "WARNING x abc"
        assert json.loads(JsonFormatter("t").format(record()))["request_id"] == "abc"
    finally:
        REQUEST.reset(token)


STRANGE = "a\x1b[2J\x7f\x9b2J\u202e\u2028\U000e0041\nCRITICAL forged"


def test_a_stranger_moves_no_cursor_and_ends_no_line():
    error = ValueError(STRANGE)
    made = record(msg=STRANGE, args=(), exc_info=(ValueError, error, None))
    made.fields = {"path": STRANGE}
    as_json = JsonFormatter("test").format(made)
    assert as_json.isprintable()
    line = json.loads(as_json)
    assert (line["message"], line["path"]) == (STRANGE, STRANGE)
    token = REQUEST.set({"request_id": STRANGE})
    try:
        lines = TextFormatter("%(levelname)s %(message)s").format(made).split("\n")
    finally:
        REQUEST.reset(token)
    assert all(map(str.isprintable, lines))
    shown = r"a\x1b[2J\x7f\x9b2J\u202e\u2028\U000e0041\nCRITICAL forged"
    assert lines[0].startswith(f"WARNING {shown}")
    assert lines[1:] == [rf"  ValueError: {shown}".partition(r"\n")[0], "  CRITICAL forged"]


def test_names_stay_as_they_are():
    made = record(msg="Prévision 二 [red]", args=())
    assert TextFormatter("%(message)s").format(made) == "Prévision 二 [red]"
    assert "Prévision 二 [red]" in JsonFormatter("test").format(made)


@pytest.mark.parametrize(
    ("format_", "tty", "is_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("text", False, False)],
)
def test_the_format_is_that_of_the_settings_or_of_where_it_goes(format_, tty, is_json, monkeypatch):
    root = logging.getLogger()
    for name in ("handlers", "level"):
        monkeypatch.setattr(root, name, getattr(root, name))
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    try:
        configure(Settings(log_format=format_), "test")
        (spoken,) = root.handlers
        assert isinstance(spoken.formatter, JsonFormatter) == is_json
    finally:
        logging.captureWarnings(capture=False)


def test_an_uncaught_error_is_a_line_too():
    script = (
        "from loss_scoring.service.settings import Settings\n"
        "from loss_scoring.service.telemetry.logs import configure\n"
        "import threading\n"
        "configure(Settings(log_format='json'), 'test')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(); thread.join()\n"
        "{}['x']\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    messages = [(line["level"], line["message"]) for line in lines_of(ended.stderr)]
    assert messages == [
        ("critical", "uncaught ZeroDivisionError"),
        ("critical", "uncaught KeyError"),
    ]

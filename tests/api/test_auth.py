"""A service that needs a key, over real sockets."""

import asyncio
import os
import socket
import subprocess
import time

import httpx
import pytest
from conftest import LOSS_SCORING, serving
from family import wait_until
from instance import instance, stopped_at_the_end
from openapi_spec_validator import validate
from test_errors import GOOD, problem
from test_keys import NEW, OLD, OTHER, rewrite
from typer.testing import CliRunner

from loss_scoring.service.api.page import PAGES
from loss_scoring.service.app import create_app
from loss_scoring.service.cli import app
from loss_scoring.service.settings import Settings

PROBES = ["/livez", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"]
GUARDED = [
    *("/losses", "/v1/losses", "/version", "/page/", "/page/absent.js"),
    *("/nowhere", "/score", "/v1/score", "/livez/"),
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(OLD)
    with (
        serving(
            *(LOSS_SCORING, "serve", "--api-keys-file", file, "--log-level", "debug"),
            LOSS_SCORING_API_KEYS=OTHER,
        ) as base,
        httpx.Client(base_url=base, timeout=60) as session,
    ):
        yield session, file


@pytest.mark.parametrize("path", [*PROBES, "/", "/page/page.js", "/docs", "/openapi.json"])
def test_probes_and_pages_are_open(guarded, path):
    client, _ = guarded
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", GUARDED)
def test_other_paths_need_a_key(guarded, path):
    client, _ = guarded
    for headers, challenge in (
        ({}, "Bearer"),
        (bearer("a-stranger-0123456789"), 'Bearer error="invalid_token"'),
    ):
        answer = client.get(path, headers=headers)
        assert not problem(answer, 401)["retryable"]
        assert answer.headers["www-authenticate"] == challenge
        assert "stranger" not in answer.text


def test_below_v2_the_refusal_has_the_form_of_its_protocol(guarded):
    client, _ = guarded
    answer = client.post("/v2/models/mae/infer", json={})
    assert (answer.status_code, list(answer.json())) == (401, ["error"])
    assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v2/models", headers=bearer(OLD)).is_success


def test_every_key_scores_and_no_key_does_not(guarded):
    client, _ = guarded
    problem(client.post("/score", json=GOOD), 401)
    for key in (OLD, OTHER):
        answer = client.post("/score", json=GOOD, headers=bearer(key))
        assert answer.json()["losses"]["mae"] == [1.0]
        assert client.get("/losses", headers=bearer(key)).status_code == 200


def test_401_comes_before_the_body(guarded):
    client, _ = guarded
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=60) as raw:
        raw.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_keys_rotate_without_a_restart(guarded):
    client, file = guarded
    rewrite(file, f"{OLD}\n{NEW}")
    deadline = time.monotonic() + 60
    while client.get("/losses", headers=bearer(NEW)).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/losses", headers=bearer(OLD)).status_code == 200


def test_openapi_says_who_needs_a_key(guarded):
    client, _ = guarded
    document = client.get("/openapi.json", headers=bearer(OTHER)).json()
    validate(document)
    (scheme,) = document["components"]["securitySchemes"].values()
    assert scheme == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{"key": []}]
    assert "401" in document["paths"]["/score"]["post"]["responses"]
    assert document["paths"]["/livez"]["get"]["security"] == []


def test_an_open_service_asks_for_no_key(client):
    document = client.get("/openapi.json").json()
    assert "security" not in document
    assert client.get("/losses", headers=bearer("whatever")).status_code == 200


def test_a_key_is_in_no_log(tmp_path, capfd):
    file = tmp_path / "keys"
    file.write_text(OLD)
    command = (LOSS_SCORING, "serve", "--api-keys-file", file, "--log-level", "debug")
    with (
        instance(command) as running,
        stopped_at_the_end(running),
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        client.post("/score", json=GOOD, headers=bearer(OLD))
        client.post("/score", json=GOOD, headers=bearer(NEW))
        client.post("/score", content=b"{", headers=bearer(OLD))
        rewrite(file, f"{OLD}\nshort")

        def read_again():
            client.get("/losses", headers=bearer(OLD))
            return "line 2" in running.log_text()

        wait_until(read_again)
    output = capfd.readouterr().err
    assert "line 2" in output
    assert not any(word in output for word in (OLD, NEW, "short"))


@pytest.mark.parametrize("path", [*PROBES, *sorted(PAGES)])
def test_probes_and_pages_need_a_key_when_asked_to(tmp_path, path):
    file = tmp_path / "keys"
    file.write_text(OLD)
    app = create_app(Settings(api_keys_file=file, auth_probes=True, auth_pages=True))

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=bearer(OLD))).status_code != 401

    asyncio.run(main())


@pytest.mark.parametrize("text", ["short", None])
def test_bad_keys_stop_the_start(tmp_path, text):
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    for flags, environment in (
        (["--api-keys-file", file], {}),
        ([], {"LOSS_SCORING_API_KEYS": text or ""}),
    ):
        ended = CliRunner().invoke(app, ["serve", *map(str, flags), "--port", "0"], env=environment)
        assert ended.exit_code == 2
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert text is None or text not in ended.stderr


def test_help_does_not_show_a_key():
    shown = subprocess.run(
        [LOSS_SCORING, "serve", "--help"],
        env=os.environ | {"LOSS_SCORING_API_KEYS": OLD}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert OLD not in shown.stdout
    assert "api-keys-file" in shown.stdout

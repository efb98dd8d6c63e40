"""The container's health check, as a command of its own against real sockets."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from instance import free_port, instance


def checked(port, host="127.0.0.1"):
    return subprocess.run(
        [sys.executable, "-m", "loss_scoring.service.health"],
        env=os.environ | {"LOSS_SCORING_PORT": str(port), "LOSS_SCORING_HOST": host},
        capture_output=True,
        text=True,
        check=False,
    )


def test_healthy_while_the_service_accepts_requests():
    with instance() as service:
        done = checked(service.port)
        assert (done.returncode, done.stdout) == (0, '{"status":"ready"}\n'), done.stderr
    gone = checked(service.port)
    assert gone.returncode == 1
    assert f"no answer of 127.0.0.1, port {service.port}" in gone.stderr


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
@pytest.mark.parametrize("frontends", [0, 1])
def test_all_addresses_of_ipv6_include_those_of_ipv4(frontends):
    with instance(host="::", frontends=frontends, device="cpu") as service:  # asked by IPv4
        assert checked(service.port, "::").returncode == 0
        assert checked(service.port, "::1").returncode == 0


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", ""), ("127.0.0.1", "http"), ("a b", 80)])
def test_an_address_that_cannot_be_bound_is_named(host, port):
    done = checked(port, host)
    assert done.returncode == 1
    assert done.stderr.startswith(f"no answer of {host}, port {port}: ")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (503, 1), (500, 1)])
def test_each_status_of_readiness(status, code):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"said")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", free_port()), Answer) as server:
        asked = threading.Thread(target=server.handle_request)
        asked.start()
        done = checked(f" {server.server_port} ", "")  # as the service would take them
        asked.join()
    assert (done.returncode, done.stdout) == (code, "said\n")

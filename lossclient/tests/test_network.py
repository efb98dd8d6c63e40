"""Clients in the environments of shells: proxies, exemptions from them, certificates."""

import asyncio

import httpx
import pytest
from fake_service import listening

from lossclient import AsyncClient, Client, InvalidInput, TransportError
from lossclient.network import is_exempt, proxy_for

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=[Client, AsyncClient])
def mae(request):
    """Return a function that scores an element with a client of its own."""

    async def main(client):
        async with client:
            return await client.score_series([[1.0]], [[2.0]], losses=["mae"])

    def call(url, **options):
        client = request.param(url, retries=0, **options)
        if isinstance(client, AsyncClient):
            return asyncio.run(main(client)).losses["mae"].tolist()
        with client:
            return client.score_series([[1.0]], [[2.0]], losses=["mae"]).losses["mae"].tolist()

    return call


@pytest.mark.parametrize(
    ("url", "no_proxy", "exempt"),
    [
        ("http://127.0.0.1:8000", "localhost,127.0.0.1", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:80", False),
        ("http://127.0.0.1:8000", "localhost", False),
        ("http://127.0.0.1:8000", "127.0.0.0/8", True),
        ("http://10.1.2.3", "192.168.0.0/16 10.0.0.0/8", True),
        ("http://10.1.2.3", "10.0.0.0/16, ::1/128", False),
        ("http://[::1]:8000", "::1", True),
        ("http://[::1]:8000", "[::1]", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://[::1]:8000", "[::1]:9", False),
        ("http://[fd00::5]", "fd00::/8", True),
        ("http://[fd00::5]", "10.0.0.0/8", False),
        ("http://scores.example.com", "example.com", True),
        ("http://scores.example.com", ".Example.com", True),
        ("http://scores.example.com", "*.example.com", True),
        ("http://example.com.", ".example.com", True),
        ("http://example.com", "example.com:80", True),
        ("https://example.com", "example.com:443", True),
        ("https://example.com", "example.com:80", False),
        ("http://notexample.com", "example.com", False),
        ("http://example.com", "http://example.com/", True),
        ("http://scores.svc.cluster.local", ".svc,.cluster.local", True),
        ("http://anything", "a, *", True),
        ("http://anything", "", False),
        ("http://anything", ", .,", False),
        ("http://anything", "[", False),
    ],
)
def test_exemptions(url, no_proxy, exempt):
    assert is_exempt(httpx.URL(url), no_proxy) is exempt


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1", None),
        ({"https_proxy": "p:1"}, None, "http://p:1"),
        ({"ALL_PROXY": "socks://p:1/"}, "socks5://p:1/", "socks5://p:1/"),
        ({"ALL_PROXY": "http://p:1", "HTTP_PROXY": "http://q:2"}, "http://q:2", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, None, None),
    ],
)
def test_which_proxy(environment, http, https, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL("http://scores.test")) == http
    assert proxy_for(httpx.URL("https://scores.test")) == https


@pytest.mark.parametrize(
    "environment",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "localhost,127.0.0.1"},
        {"ALL_PROXY": "socks://127.0.0.1:1080", "NO_PROXY": "localhost,127.0.0.1"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.0/8"},
        {"HTTPS_PROXY": "gopher://127.0.0.1:1"},
        {"NO_PROXY": "localhost,127.0.0.1,[::1]"},
        {"NO_PROXY": "127.0.0.1,10.0.0.0/8,::1/128"},
        {"SSL_CERT_FILE": "/etc/ssl/gone.pem"},
    ],
)
def test_what_does_not_concern_the_service_is_no_hindrance(environment, mae, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with listening() as url:
        assert mae(url) == [1.0]


def test_requests_go_through_the_proxy(mae, monkeypatch):
    with listening() as proxy:  # which answers by itself
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert mae("http://scores.test:8000/api") == [1.0]


def test_an_unreachable_proxy_is_named_without_its_password(mae, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    with pytest.raises(TransportError, match=r"from http://scores.test by way of ") as caught:
        mae("http://scores.test")
    assert "http://...@127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ALL_PROXY": "socks4://me:secret@p:1"}, ["socks4", "NO_PROXY", "scores.test"]),
        ({"HTTPS_PROXY": "http://me:secret@p:x"}, ["http://...@p:x", "not a URL"]),
        ({"SSL_CERT_FILE": "/gone.pem"}, ["/gone.pem", "SSL_CERT_FILE", "scores.test"]),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_cannot_be_used_is_named(environment, words, kind, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput) as caught:
        kind("https://scores.test")
    for word in words:
        assert word in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_socks_proxy_needs_a_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks://p:1")
    with pytest.raises(InvalidInput, match=r"pip install httpx\[socks\].*NO_PROXY"):
        Client("http://scores.test")


def test_certificates_are_read_from_files_that_hold_some(monkeypatch, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    with pytest.raises(InvalidInput, match=r"empty\.pem"):
        Client("https://scores.test")
    monkeypatch.setenv("SSL_CERT_FILE", __import__("certifi").where())
    Client("https://scores.test").close()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "127.0.0.1:8000",
        "scores.test",
        "//scores.test",
        "http:/scores.test",
        "http://scores.test:8000 ",
        " http://scores.test",
        "http://scores.test\n",
        "http://my host",
        "http://scores.test?losses=mae",
        "http://scores.test/#top",
        "ws://scores.test",
        "",
    ],
)
def test_mistakes_in_urls(url):
    with pytest.raises(InvalidInput, match="base_url must be like http://host:port, not"):
        Client(url)


@pytest.mark.parametrize("url", ["unix:///run/x.sock", "http+unix://%2Frun", "unix:/run/x.sock"])
def test_unix_sockets_go_by_a_transport(url):
    with pytest.raises(InvalidInput, match=r"httpx\.HTTPTransport\(uds=path\)"):
        Client(url)


@pytest.mark.parametrize("url", ["http://scores.test/", "http://[::1]:8000/api/", "HTTP://A.test"])
def test_what_is_a_url(url):
    Client(url).close()

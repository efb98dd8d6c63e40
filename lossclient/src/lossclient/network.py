"""The environment's proxy and certificates.

httpx reads the same variables, but for any address that may ever be requested: it fails for a proxy
that it cannot use though ``NO_PROXY`` exempts the service, for entries in ``NO_PROXY`` that other
tools know (``10.0.0.0/8``, ``[::1]``), and for certificates that plain http does not need.
"""

import ipaddress
import os
import re
import urllib.request
from typing import Any

import httpx

from lossclient.arguments import without_password
from lossclient.exceptions import InvalidInput


def proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for a URL, None without one."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_exempt(url, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    return re.sub("^socks://", "socks5://", proxy)  # GNOME's name for it


def is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` names the host of a URL.

    Its entries, with commas or spaces between them, are names of hosts (which include those below
    them), addresses or networks of addresses, each with a port or without, or ``*``.

    Example:
        >>> is_exempt(httpx.URL("http://10.1.2.3:8000"), "localhost,10.0.0.0/8")
        True
        >>> is_exempt(httpx.URL("http://scores.example.com"), ".example.com:443")
        False
    """
    return any(_names(entry, url) for entry in re.split(r"[,\s]+", no_proxy.lower()) if entry)


def _names(entry: str, url: httpx.URL) -> bool:
    name = entry.rpartition("://")[2].rstrip("/")
    port = ""
    if bracketed := re.fullmatch(r"\[(.*)\](?::(\d+))?", name):
        name, port = bracketed.groups("")
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    if port and port != str(url.port or {"http": 80, "https": 443}[url.scheme]):
        return False
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is a name
        suffix = name.removeprefix("*").strip(".")
        host = url.host.lower().rstrip(".")
        return name == "*" or (suffix != "" and f".{host}".endswith(f".{suffix}"))


def transport_options(url: httpx.URL, proxy: str | None) -> dict[str, Any]:
    """Return arguments of httpx's transports for a URL, by way of a proxy if one is given.

    All share one TLS context, for plain http too, where each would make one of its own: OpenSSL
    holds a lock meanwhile, which a child that another thread forks would wait for forever.

    Raises:
        InvalidInput: If the proxy cannot be used, or the certificates cannot be read.
    """
    try:
        # Plain http needs no certificates.
        context = httpx.create_ssl_context(verify=url.scheme == "https")
        options: dict[str, Any] = {"proxy": proxy, "verify": context}
        # An error here is one of the constructor, and not of the first request.
        httpx.HTTPTransport(**options).close()
    except OSError as error:
        place = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "certifi"
        raise InvalidInput(
            f"no certificates for {url.scheme}://{url.host} can be read from {place} "
            f"(change SSL_CERT_FILE or SSL_CERT_DIR): {error}"
        ) from error
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # httpx's message about an invalid URL may hold a part of its password.
        reason = "not a URL" if isinstance(error, httpx.InvalidURL) else error
        raise InvalidInput(
            f"the environment's proxy {without_password(str(proxy))} cannot be used: {reason}; "
            f"change it (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY), or add {url.host} to NO_PROXY"
        ) from error
    return options

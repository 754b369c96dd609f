"""Addresses: of the API, of a proxy, of this machine. Nothing is sent from here."""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_volubile.exceptions import VolubileInputError

_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    if not host:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(address: str) -> bool:
    """Whether an IP address is reachable from here only: loopback, private, link-local, shared, multicast, reserved.

    :raises ValueError: it is no IP address.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return not found.is_global or found.is_multicast


def origin(url: str | SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials belong to.

    :raises ValueError: the URL has no usable host or port.
    """
    parts = urlsplit(url) if isinstance(url, str) else url
    if not parts.hostname:
        raise ValueError("no host")
    scheme = parts.scheme.lower()
    return scheme, parts.hostname.lower(), parts.port or {"https": 443, "http": 80}.get(scheme, 0)


def find_proxy(url: str) -> SplitResult | None:
    """The proxy that the environment names for a URL.

    :raises ValueError: it cannot be used. The text holds nothing of it: a mistake may put its password anywhere.
    """
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if os.environ.get(name)), "HTTPS_PROXY")
    try:
        parts = urlsplit(proxy if "://" in proxy or "@" in proxy else f"http://{proxy}")
        scheme, _, _ = origin(parts)
    except ValueError:
        scheme, parts = "", urlsplit("")
    if scheme not in _PROXY_SCHEMES or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"the address in {variable} is no URL of a proxy: expected http://host:port or "
            "http://user:password@host:port; percent-encode its password"
        )
    if scheme.startswith("socks") and find_spec("socks") is None:
        raise ValueError(f"the SOCKS proxy in {variable} needs the package PySocks: pip install 'requests[socks]'")
    return parts


def check_base_url(url: str) -> str:
    """Return the address of the API without a slash at its end.

    :raises VolubileInputError: not https (http is for this machine only), or anything but host, port and path in it.
        The message never shows a user or password that was put into the URL.
    """
    text = str(url).strip()
    host = ""
    with suppress(ValueError):  # whose text may repeat a key that was put into the URL
        parts = urlsplit(text)
        scheme, host, _ = origin(parts)
    if not host:
        raise VolubileInputError(
            "the host of the connection is not a URL: expected for example https://api.eu.volubile.ai"
        )
    if parts.username is not None or parts.password is not None:
        raise VolubileInputError(f"the URL of {host} holds a user or password: keys belong in their own fields.")
    if "?" in text or "#" in text:
        raise VolubileInputError(f"the URL of {host} holds a query or fragment: give host, port and path only.")
    if scheme != "https" and not (scheme == "http" and is_loopback(host)):
        raise VolubileInputError(
            f"{scheme}://{host} would send keys and numbers unprotected: use https (http only for this machine)."
        )
    if any(not c.isprintable() or c.isspace() or c == "\\" for c in text):
        raise VolubileInputError(f"the URL of {host} holds a space or another character that no URL has.")
    base = text.rstrip("/")
    if base.endswith("/v1"):
        raise VolubileInputError(f"the URL of {host} must end before '/v1': the client adds it.")
    return base

"""An Airflow connection, checked: the one place that knows its fields. See :ref:`connection`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Connection
from airflow.sdk.log import mask_secret

from airflow_provider_volubile.api.addresses import check_base_url
from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens, Credentials, check_key
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import Secret, Unstorable

DEFAULT_HOST = "https://api.eu.volubile.ai"
DEFAULT_TIMEOUT = 30.0
LONGEST_TIMEOUT = 600.0
AUTH_MODES = ("api_key", "bearer")
_NOT_SHOWN = " (what it holds is not shown: it might be a misplaced key)"
#: What the connection's extra may hold.
EXTRA_FIELDS = frozenset({"secondary_api_key", "auth", "timeout", "private_storage"})


@dataclass(frozen=True)
class Settings(Unstorable):
    """A connection, checked.

    :param base_url: ``https://host[:port][/path]``; ``http`` only to this machine.
    :param primary: the primary API key.
    :param secondary: the other key of the account's pair, if it was given.
    :param auth: ``api_key`` or ``bearer``.
    :param timeout: seconds to connect, and to wait for each next part of an answer.
    :param private_storage: recordings may be on private addresses.
    :param unknown: names in the connection's extra that mean nothing here, such as a mistyped one.
    """

    base_url: str
    primary: Secret
    secondary: Secret | None = None
    auth: str = AUTH_MODES[0]
    timeout: float = DEFAULT_TIMEOUT
    private_storage: bool = False
    unknown: tuple[str, ...] = ()

    def credentials(self, name: str) -> Credentials:
        """Who requests go out as.

        :param name: what messages call the connection.
        """
        return credentials(self.auth, ApiKeyPair(self.primary, self.secondary, name=name))


def credentials(auth: str, pair: ApiKeyPair) -> Credentials:
    """The keys themselves, or tokens that they ask for."""
    return BearerTokens(pair) if auth == "bearer" else pair


def read_settings(connection: Connection) -> Settings:
    """Check a connection and make its secrets known to Airflow's log masker.

    :raises VolubileInputError: naming the field and the rule.
    """
    extra = _extra(connection)
    primary = _key(connection.password, "password")
    secondary = _key(extra.get("secondary_api_key"), "secondary_api_key")
    if connection.login:
        raise VolubileInputError(
            "it has a login. Airflow never masks that field, so it must stay empty: the primary key belongs in the "
            "password, the secondary one in the extra field secondary_api_key."
        )
    if primary is None:
        raise VolubileInputError(
            "it has no API key: put the primary key in the password field. Keys are made in Volubile's dashboard, "
            "under Integrations, API."
        )
    auth = extra.get("auth") or AUTH_MODES[0]
    if auth not in AUTH_MODES:
        raise VolubileInputError(f"auth is neither 'api_key' nor 'bearer'{_NOT_SHOWN}.")
    return Settings(
        base_url=_base_url(connection),
        primary=primary,
        secondary=secondary,
        auth=auth,
        timeout=_timeout(extra.get("timeout")),
        private_storage=_flag(extra.get("private_storage"), "private_storage"),
        unknown=tuple(sorted(extra.keys() - EXTRA_FIELDS)),
    )


def _extra(connection: Connection) -> dict[str, Any]:
    """The extra. Airflow takes one that it cannot read for an empty one, and so a pair of keys for a single one."""
    with suppress(ValueError, RecursionError):
        if not connection.extra or isinstance(json.loads(connection.extra), dict):
            return connection.extra_dejson
    raise VolubileInputError(
        'its extra is no JSON object, so nothing in it counts: expected for example {"secondary_api_key": "…"}.'
    )


def _key(value: Any, name: str) -> Secret | None:
    """A key as it is sent. Airflow reads the values in a URI's query as JSON, so one of digits arrives as a number."""
    if isinstance(value, float | bool | list | dict):
        raise VolubileInputError(
            f"{name} arrived as a {type(value).__name__}, not as text: write the connection as JSON, or the extra as "
            "__extra__ in the URI."
        )
    key = Secret("" if value is None else str(value).strip())
    del value
    if not key.reveal():
        return None
    mask_secret(key.reveal())
    return check_key(key, f"the API key in {name}")


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip() or DEFAULT_HOST
    scheme = connection.schema or "https"
    if scheme not in ("http", "https"):
        raise VolubileInputError(f"schema is neither empty nor 'https' nor 'http'{_NOT_SHOWN}.")
    if not 0 <= (connection.port or 0) <= 65535:
        raise VolubileInputError(f"the port is {connection.port}; it must be from 1 to 65535.")
    if "://" not in host:
        host = f"{scheme}://[{host}]" if host.count(":") > 1 and host[0] != "[" else f"{scheme}://{host}"
    base = check_base_url(host)
    parts = urlsplit(base)
    port = parts.port or connection.port
    if connection.port not in (None, 0, port):
        raise VolubileInputError(f"the host names port {port} and the port field {connection.port}: drop one.")
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    is_usual = port in (None, 0, {"https": 443, "http": 80}[parts.scheme])
    return parts._replace(netloc=f"{name}" if is_usual else f"{name}:{port}").geturl()


def _timeout(value: Any) -> float:
    if value in (None, ""):
        return DEFAULT_TIMEOUT
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise VolubileInputError(
            f"timeout is no number of seconds greater than 0 and up to {LONGEST_TIMEOUT:g}{_NOT_SHOWN}."
        )
    return seconds


def _flag(value: Any, name: str) -> bool:
    text = str(value or "false").lower()
    if text not in ("true", "false"):
        raise VolubileInputError(f"{name} is neither true nor false{_NOT_SHOWN}.")
    return text == "true"

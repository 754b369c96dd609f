"""An Airflow connection becomes a Volubile client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, Connection
from airflow.sdk.log import mask_secret

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.api.pacing import shared_window
from airflow_provider_volubile.exceptions import VolubileInputError

DEFAULT_HOST = "https://api.eu.volubile.ai"
DEFAULT_TIMEOUT = 30.0
AUTH_MODES = ("api_key", "bearer")


@dataclass(frozen=True)
class Settings:
    """A connection, checked.

    :param base_url: ``https://host[:port]``; ``http`` only to this machine.
    :param primary: the primary API key.
    :param secondary: the other key of the account's pair, if it was given.
    :param auth: ``api_key`` or ``bearer``.
    :param timeout: seconds to connect, and to wait for the next byte.
    """

    base_url: str
    primary: str = field(repr=False)
    secondary: str | None = field(repr=False)
    auth: str
    timeout: float


class VolubileHook(BaseHook):
    """Reads a connection and hands out clients. See :ref:`connection`.

    :param volubile_conn_id: the connection's id.
    """

    conn_name_attr = "volubile_conn_id"
    default_conn_name = "volubile_default"
    conn_type = "volubile"
    hook_name = "Volubile"

    def __init__(self, volubile_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.volubile_conn_id = volubile_conn_id

    @cached_property
    def settings(self) -> Settings:
        """The connection, read once.

        :raises VolubileInputError: it lacks a key, or holds something that cannot be right.
        """
        return read_settings(self.get_connection(self.volubile_conn_id))

    def client(self, *, background: bool = False) -> VolubileClient:
        """A client for this connection. All clients of one account in a process share its rate window.

        :param background: for polling: leaves a part of the window to those who do more than wait.
        """
        settings = self.settings
        pair = ApiKeyPair(settings.primary, settings.secondary, name=self.volubile_conn_id)
        account = hashlib.sha256(f"{settings.base_url}\n{settings.primary}".encode()).hexdigest()
        return VolubileClient(
            settings.base_url,
            BearerTokens(pair) if settings.auth == "bearer" else pair,
            window=shared_window(account),
            timeout=settings.timeout,
            background=background,
            on_secret=mask_secret,
        )

    def get_conn(self) -> VolubileClient:
        """A client, under the name that hooks have for it."""
        return self.client()

    def issue_token(self, scopes: Iterable[str]) -> IssuedToken:
        """Ask for a bearer token that may do no more than ``scopes``, to hand to something outside Airflow.

        :param scopes: such as ``["calls:read"]``
            (`Authentication <https://docs.volubile.ai/api-reference/authentication>`__).
        :returns: the token, already registered with Airflow's log masker. Never push it to XCom: XCom is stored and
            shown in clear.
        """
        return self.client().issue_token(scopes)


def read_settings(connection: Connection) -> Settings:
    """Check a connection and make secrets known to Airflow's log masker.

    :raises VolubileInputError: naming the field and the rule.
    """
    where = f"Connection {connection.conn_id!r}"
    extra = connection.extra_dejson
    primary = (connection.password or "").strip()
    secondary = str(extra.get("secondary_api_key") or "").strip() or None
    for secret in filter(None, (primary, secondary)):
        mask_secret(secret)
    if not primary:
        raise VolubileInputError(
            f"{where} has no API key: put the primary key in the password field. Keys are made in Volubile's "
            "dashboard under Integrations, API."
        )
    if connection.login:
        raise VolubileInputError(
            f"{where} has a login. Airflow never masks that field, so it must stay empty: the primary key "
            "belongs in the password, the secondary in the extra field secondary_api_key."
        )
    auth = str(extra.get("auth") or AUTH_MODES[0])
    if auth not in AUTH_MODES:
        raise VolubileInputError(f"{where}: auth is {auth!r}; it must be 'api_key' or 'bearer'.")
    return Settings(_base_url(connection, where), primary, secondary, auth, _timeout(extra.get("timeout"), where))


def _base_url(connection: Connection, where: str) -> str:
    host = (connection.host or "").strip().rstrip("/") or DEFAULT_HOST
    if "://" not in host:
        scheme = connection.schema or "https"
        if scheme not in ("http", "https"):
            raise VolubileInputError(f"{where}: schema is {scheme!r}; it must be empty, 'https' or 'http'.")
        host = f"{scheme}://{host}"
    if connection.port and urlsplit(host).port is None:
        host = f"{host}:{connection.port}"
    return host


def _timeout(value: Any, where: str) -> float:
    if value in (None, ""):
        return DEFAULT_TIMEOUT
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise VolubileInputError(f"{where}: timeout is {value!r}; it must be a number of seconds up to 600.")
    return seconds

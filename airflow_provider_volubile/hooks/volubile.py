"""An Airflow connection becomes a Volubile client.

Every operator imports this module, and so does every parse of their Dags: what talks HTTP is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileInputError, VolubileUnavailable

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.api.models import IssuedToken
    from airflow_provider_volubile.hooks.checking import Verdict
    from airflow_provider_volubile.hooks.settings import Settings


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
        from airflow_provider_volubile.hooks.settings import read_settings

        connection = self.get_connection(self.volubile_conn_id)
        try:
            return read_settings(connection)
        except VolubileInputError as error:
            raise VolubileInputError(f"Connection {self.volubile_conn_id!r}: {error}") from None

    @property
    def account(self) -> str:
        """What tells accounts apart, without a secret in it: connections of one account have the same.

        :raises VolubileInputError: as for :attr:`settings`.
        """
        from airflow_provider_volubile.api.auth import digest

        return digest(self.settings.base_url, self.settings.primary.reveal())

    @property
    def credentials_id(self) -> str:
        """What tells credentials apart, without a secret in it: the account, its keys, and how they are used.

        Two connections to one account may hold different keys: what is refused with one, the other may do.

        :raises VolubileInputError: as for :attr:`settings`.
        """
        from airflow_provider_volubile.api.auth import digest

        settings = self.settings
        secondary = settings.secondary.reveal() if settings.secondary else ""
        return digest(settings.base_url, settings.primary.reveal(), secondary, settings.auth)

    def client(self, *, background: bool = False) -> VolubileClient:
        """A client for this connection. All clients of one account in a process share its rate window.

        :param background: for polling: leaves a part of the window to those who do more than wait.
        """
        from airflow_provider_volubile.api.client import VolubileClient
        from airflow_provider_volubile.api.rate_window import shared_window

        settings = self.settings
        return VolubileClient(
            settings.base_url,
            settings.credentials(self.volubile_conn_id),
            window=shared_window(self.account),
            timeout=settings.timeout,
            private_storage=settings.private_storage,
            background=background,
            on_secret=mask_secret,
        )

    def get_conn(self) -> VolubileClient:
        """A client, under the name that hooks have for it."""
        return self.client()

    def test_connection(self) -> tuple[bool, str]:
        """Try each key by itself, in the mode the connection uses; takes seconds at most and changes nothing.

        What ``airflow connections test`` and the *Test* button of the connection form call.

        :returns: whether everything the connection holds works, and a text for a person: which key works, how, with
            which limits; or what is wrong (host, TLS, proxy, keys, rights) and what to do.
        """
        found = self._check()
        return found.good, found.text

    def check_connection(self) -> str:
        """The same for a task: what :meth:`test_connection` answers, or an error that tells whether to try again.

        :returns: what works.
        :raises VolubileUnavailable: the service could not be asked, which may be over in a while.
        :raises VolubileAuthError: a key is refused or no spare, or the connection is not usable: somebody has to look.
        """
        found = self._check()
        if found.good:
            return found.text
        failure = VolubileUnavailable if found.may_pass else VolubileAuthError
        raise failure(f"Connection {self.volubile_conn_id!r}: {found.text}")

    def _check(self) -> Verdict:
        from airflow_provider_volubile.hooks.checking import Verdict, check
        from airflow_provider_volubile.hooks.settings import read_settings

        # The UI tests under a made-up id, so nothing here names the connection.
        try:
            settings = read_settings(self.get_connection(self.volubile_conn_id))
        except VolubileInputError as error:
            return Verdict(False, f"The connection is not usable: {error}")
        return check(settings)

    def issue_token(self, scopes: Iterable[str]) -> IssuedToken:
        """Ask for a bearer token that may do no more than ``scopes``, to hand to something outside Airflow.

        It is already known to Airflow's log masker. Never push it to XCom, which is stored and shown in clear; see
        :doc:`/howto/tokens` for a safe way.

        :param scopes: such as ``["calls:read"]``
            (`Authentication <https://docs.volubile.ai/api-reference/authentication>`__).
        :raises VolubileInputError: a scope that the API does not know.
        :raises VolubileAuthError: both keys are refused. A token cannot ask for another one, so keys are used whatever
            the connection's ``auth`` is.
        """
        with self.client() as client:
            return client.issue_token(scopes)

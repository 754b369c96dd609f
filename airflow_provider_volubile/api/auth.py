"""Who a request goes out as: one of the account's two keys, or a short-lived token with the scope it needs.

Facts: https://docs.volubile.ai/api-reference/authentication and
https://docs.volubile.ai/api-reference/auth/create-token.

The pair of keys and the tokens made of it are plain values here. What was learned about them (which key works, which
tokens are still good) belongs to the process: it is kept per address of the API and pair of keys, and shared by all
threads and by clients that are made later.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_volubile.api.routes import DASHBOARD, Route
from airflow_provider_volubile.api.tokens import HEADER_SAFE, Mint, TokenCache, TokenIdentity, said
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileInputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiKeyPair:
    """The account's two keys; the second keeps things going while the first is replaced.

    :param primary: used until the server refuses it.
    :param secondary: tried then.
    :param name: what messages call the connection that holds the keys.
    :raises VolubileInputError: a key that is empty or holds characters no header can carry.
    """

    primary: str = field(repr=False)
    secondary: str | None = field(default=None, repr=False)
    name: str = "volubile"

    def __post_init__(self) -> None:
        primary = check_key(self.primary, f"connection {self.name!r}: the primary API key")
        secondary = None
        if self.secondary and self.secondary.strip():
            secondary = check_key(self.secondary, f"connection {self.name!r}: the secondary API key")
        object.__setattr__(self, "primary", primary)
        object.__setattr__(self, "secondary", None if secondary == primary else secondary)

    @property
    def keys(self) -> tuple[str, ...]:
        """One or two."""
        return (self.primary,) if self.secondary is None else (self.primary, self.secondary)


@dataclass(frozen=True)
class BearerTokens:
    """Tokens that the pair of keys asks for, each with no more than the scope an operation needs.

    :param pair: the only thing that can ask for tokens.
    """

    pair: ApiKeyPair


Credentials = ApiKeyPair | BearerTokens


class Identity(Protocol):
    """Who one request goes out as, over all its attempts."""

    def headers(self) -> dict[str, str]:
        """What to send now. May ask for a token first."""

    def refused(self) -> bool:
        """Take in a 401; whether there is something else to try."""

    def answered(self, status: int) -> None:
        """Take in any other answer."""

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        """The error to raise after a 401 with nothing left to try, or after a 403."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be taken out of whatever comes from the server."""


def identify(credentials: Credentials, base_url: str, mint: Mint) -> Callable[[Route], Identity]:
    """Return what tells, for each request, who it goes out as.

    :param mint: asks the server for a token with these scopes (:meth:`VolubileClient.issue_token`).
    """
    pair = credentials.pair if isinstance(credentials, BearerTokens) else credentials
    account = _account(pair, base_url)
    if not isinstance(credentials, BearerTokens):
        return lambda route: KeyIdentity(pair, account)
    with _lock:
        tokens = _tokens.setdefault(account, TokenCache())

    def identity(route: Route) -> Identity:
        if route.scope is None:
            return KeyIdentity(pair, account)
        return TokenIdentity(tokens, frozenset({route.scope}), mint, pair.name, pair.keys)

    return identity


_working: dict[str, int] = {}  # account → which of its keys worked last
_tokens: dict[str, TokenCache] = {}
_lock = threading.Lock()


def _account(pair: ApiKeyPair, base_url: str) -> str:
    return hashlib.sha256("\0".join((base_url, *pair.keys)).encode()).hexdigest()


def check_key(key: Any, what: str) -> str:
    """Return a key as it is sent.

    :param what: what the message calls it, which never shows it.
    :raises VolubileInputError: it is empty, or holds characters no header can carry.
    """
    text = key.strip() if isinstance(key, str) else ""
    if not text:
        raise VolubileInputError(f"{what} is empty: create one at {DASHBOARD} and store it in the connection.")
    if not HEADER_SAFE.fullmatch(text):
        raise VolubileInputError(f"{what} holds a space or another character no key has: copy it again.")
    return text


def key_in_use(pair: ApiKeyPair, base_url: str) -> str:
    """Which key this process uses now: ``primary`` or ``secondary``."""
    return ("primary", "secondary")[_working.get(_account(pair, base_url), 0)]


class KeyIdentity:
    """One of the pair: the one that worked last in this process first, the other once if it is refused.

    :param account: under which the process remembers what works.
    """

    def __init__(self, pair: ApiKeyPair, account: str) -> None:
        self._pair = pair
        self._account = account
        self._current = _working.get(account, 0)
        self._tried: set[int] = set()

    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self._pair.keys[self._current]}

    def refused(self) -> bool:
        self._tried.add(self._current)
        other = 1 - self._current
        if other in self._tried or other >= len(self._pair.keys):
            return False
        self._current = other
        return True

    def answered(self, status: int) -> None:
        # A 429 or 5xx may come from in front of whoever checks keys: it proves nothing.
        if not self._tried or status == 429 or status >= 500:
            return
        with _lock:
            if _working.get(self._account, 0) == self._current:
                return
            _working[self._account] = self._current
        works, fails = ("secondary", "primary") if self._current else ("primary", "secondary")
        log.warning(
            "Connection %r: the %s API key was refused (401), the %s one works and is used from now on in this "
            "process. Create a new key at %s and store it in the connection in place of the refused one.",
            self._pair.name,
            fails,
            works,
            DASHBOARD,
        )

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        name = self._pair.name
        if status == 403:
            return VolubileAuthError(
                f"Connection {name!r}: {operation} is forbidden (403) for this account's API key. "
                f"Check the account's rights at {DASHBOARD}; repeating the request does not help.{said(reason)}",
                operation=operation,
                status=status,
            )
        which = "both API keys were" if len(self._pair.keys) > 1 else "the API key was"
        return VolubileAuthError(
            f"Connection {name!r}: {which} refused (401) for {operation}. They are missing, disabled, or of a disabled "
            f"account: compare the connection's password and secondary_api_key with {DASHBOARD}.{said(reason)}",
            operation=operation,
            status=status,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._pair.keys


def _forget() -> None:
    """Start anew in a forked child: a lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.Lock()
    _tokens.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

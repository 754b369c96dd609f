"""Which credential a request carries: one of the account's two keys, or a short-lived token with the scope it needs.

Facts: https://docs.volubile.ai/api-reference/authentication and
https://docs.volubile.ai/api-reference/auth/create-token.

The pair of keys and the tokens made of it are plain values here. What was learned about them (which key works, which
tokens are still good) belongs to the process: it is kept per address of the API and pair of keys, and shared by all
threads and by clients that are made later.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import jwt
from requests import PreparedRequest

from airflow_provider_volubile.api.answers import read_json, unreadable
from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.api.routes import DASHBOARD, ISSUE_TOKEN, SCOPES
from airflow_provider_volubile.api.transport import Answer, Message
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError, VolubileInputError
from airflow_provider_volubile.masking import Secret, Unstorable

log = logging.getLogger(__name__)

#: Longest time a token is used for without asking again, in seconds, whatever it claims.
LONGEST_LIFE = 24 * 3600.0
#: A token is renewed this long before its end (seconds), but not earlier than at 80 % of its life.
RENEWAL_LEAD = 60.0

# What a header can carry. Anything longer than any key or token would be an accident.
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,16384}")
_EXPIRED_ON_THE_WAY = 5

Send = Callable[[Message], Answer]


class ApiKeyPair(Unstorable):
    """The account's two keys; the second keeps things going while the first is replaced.

    :param primary: used until the server refuses it.
    :param secondary: tried then.
    :param name: what messages call the connection that holds the keys.
    :raises VolubileInputError: a key that is empty or holds characters no header can carry.
    """

    __slots__ = ("_keys", "name")

    def __init__(self, primary: str | Secret, secondary: str | Secret | None = None, name: str = "volubile") -> None:
        first = check_key(primary, f"connection {name!r}: the primary API key")
        self._keys: tuple[Secret, ...] = (first,)
        self.name = name
        if secondary is not None and _text(secondary).strip():
            second = check_key(secondary, f"connection {name!r}: the secondary API key")
            if second != first:
                self._keys = (first, second)

    def __repr__(self) -> str:
        return f"ApiKeyPair(name={self.name!r})"

    @property
    def keys(self) -> tuple[str, ...]:
        """One or two."""
        return tuple(key.reveal() for key in self._keys)

    @property
    def primary(self) -> str:
        return self.keys[0]

    @property
    def secondary(self) -> str | None:
        """None as well when it is the primary again."""
        return self.keys[1] if len(self._keys) > 1 else None


def _text(key: Any) -> str:
    return key.reveal() if isinstance(key, Secret) else key if isinstance(key, str) else ""


@dataclass(frozen=True)
class BearerTokens:
    """Tokens that the pair of keys asks for, each with no more than the scope an operation needs.

    :param pair: the only thing that can ask for tokens.
    """

    pair: ApiKeyPair


Credentials = ApiKeyPair | BearerTokens


def check_key(key: Any, what: str) -> Secret:
    """Return a key as it is sent.

    :param what: what the message calls it, which never shows it.
    :raises VolubileInputError: it is empty, or holds characters no header can carry.
    """
    found = Secret(_text(key).strip())
    del key
    if not found.reveal():
        raise VolubileInputError(f"{what} is empty: create one at {DASHBOARD} and store it in the connection.")
    if not _HEADER_SAFE.fullmatch(found.reveal()):
        raise VolubileInputError(f"{what} holds a space or another character no key has: copy it again.")
    return found


def digest(*parts: str | None) -> str:
    """What tells accounts and credentials apart without a secret in it."""
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()


class Identity(Protocol):
    """What one request carries, over all its attempts: adds itself to a request, as any auth object of requests."""

    secrets: tuple[str, ...]  # what must be taken out of whatever comes from the server

    def prepare(self, send: Send) -> None:
        """Ask for a token with ``send``, where one is needed."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest: ...

    def has_another(self, status: int) -> bool:
        """Take in the status of an answer; whether the request was refused (401) and another credential is there."""

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        """The error to raise after a 401 with nothing left to try, or after a 403."""


def identify(credentials: Credentials, base_url: str, scope: str | None) -> Identity:
    """What a request carries.

    :param scope: that its route needs; None where only a key is accepted.
    """
    if isinstance(credentials, ApiKeyPair):
        return _KeyIdentity(credentials, base_url)
    if scope is None:
        return _KeyIdentity(credentials.pair, base_url)
    return _TokenIdentity(credentials.pair, base_url, frozenset({scope}))


# --- keys ---------------------------------------------------------------------------------------------------------

_working: dict[str, int] = {}  # account → which of its keys worked last


class _KeyIdentity:
    """One of the pair: the one that worked last in this process first, the other once if it is refused."""

    def __init__(self, pair: ApiKeyPair, base_url: str) -> None:
        self.secrets = pair.keys
        self._name = pair.name
        self._account = digest(base_url, *pair.keys)
        self._current = _working.get(self._account, 0)
        self._refused: set[int] = set()

    def prepare(self, send: Send) -> None:
        """A key needs nothing."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["X-Api-Key"] = self.secrets[self._current]
        return request

    def has_another(self, status: int) -> bool:
        if status == 401:
            self._refused.add(self._current)
            other = 1 - self._current
            if other in self._refused or other >= len(self.secrets):
                return False
            self._current = other
            return True
        # A 429 or 5xx may come from a gateway in front of the API: it proves nothing about the key.
        if self._refused and status != 429 and status < 500:
            self._remember()
        return False

    def _remember(self) -> None:
        with _lock:
            if _working.get(self._account, 0) == self._current:
                return
            _working[self._account] = self._current
        works, fails = ("secondary", "primary") if self._current else ("primary", "secondary")
        log.warning(
            "Connection %r: the %s API key was refused (401), the %s one works and is used from now on in this "
            "process. Create a new key at %s and store it in the connection in place of the refused one.",
            self._name,
            fails,
            works,
            DASHBOARD,
        )

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        if status == 403:
            text = (
                f"{operation} is forbidden (403) for this account's API key. Check the account's rights at "
                f"{DASHBOARD}; repeating the request does not help."
            )
        else:
            which = "both API keys were" if len(self.secrets) > 1 else "the API key was"
            text = (
                f"{which} refused (401) for {operation}. They are missing, disabled, or of a disabled account: "
                f"compare the connection's password and secondary_api_key with {DASHBOARD}."
            )
        return _refusal(self._name, text, operation, status, reason)


def _refusal(name: str, text: str, operation: str, status: int, reason: str) -> VolubileAuthError:
    said = f" The server says: {reason}" if reason else ""
    return VolubileAuthError(f"Connection {name!r}: {text}{said}", operation=operation, status=status)


# --- tokens -------------------------------------------------------------------------------------------------------


def issue_token(send: Send, base_url: str, scopes: Iterable[str] | str) -> IssuedToken:
    """Ask for a token; see :meth:`VolubileClient.issue_token`."""
    wanted = [scopes] if isinstance(scopes, str) or not isinstance(scopes, Iterable) else list(scopes)
    unknown = [scope for scope in wanted if not isinstance(scope, str) or scope not in SCOPES]
    if unknown or not wanted:
        told = ", ".join(map(repr, unknown)) or "none at all"
        raise VolubileInputError(f"scopes: {told}; the API knows {', '.join(sorted(SCOPES))}.")
    body = json.dumps({"scope": sorted(wanted)}).encode()
    answer = send(Message(ISSUE_TOKEN, base_url + ISSUE_TOKEN.path, body=body))
    data = read_json(ISSUE_TOKEN, answer)
    token, expires_in = Secret(""), None
    if isinstance(data, dict) and isinstance(data.get("token"), str):
        token, expires_in = Secret(data["token"]), data.get("expiresIn")
    del data  # it holds the token, and error trackers store variables
    if not _HEADER_SAFE.fullmatch(token.reveal()):
        raise unreadable(ISSUE_TOKEN, answer, "holds no usable token")
    life = token_lifetime(token, expires_in)
    if life is None:
        raise unreadable(ISSUE_TOKEN, answer, "holds a token that is over, or does not say how long it lives")
    return IssuedToken(token, frozenset(wanted), life, datetime.now(UTC) + timedelta(seconds=life))


def token_lifetime(token: Secret, expires_in: Any) -> float | None:
    """Seconds a token is good for from its receipt; None when that is not known or not positive.

    What the token itself says, ``exp - iat``: no clock that goes wrong can distort it, and only the server can judge
    whether a token is good, so its signature is not checked. ``expiresIn`` of the answer where it does not say.
    More than :data:`LONGEST_LIFE` is cut.
    """
    try:
        claims = jwt.decode(token.reveal(), options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):  # documented is a JWT; an opaque token is fine
        claims = {}
    issued, expires = claims.get("iat"), claims.get("exp")
    if isinstance(issued, int | float) and isinstance(expires, int | float):
        life: Any = expires - issued
    else:
        life = expires_in
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < float("inf"):
        return None
    return min(float(life), LONGEST_LIFE)


@dataclass
class _Slot:
    """The token with some scopes, or the error that asking for it last ended with."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: IssuedToken | None = field(default=None, repr=False)
    renew_at: float = 0.0  # monotonic
    ends_at: float = 0.0
    error: VolubileError | None = None
    failed_at: float = 0.0

    def get(self, ask: Callable[[], IssuedToken]) -> IssuedToken:
        """Return a token that is good for a while; ask for one if there is none.

        However many threads come, one asks. The others wait for it and share its answer, also when that is an error.
        """
        came = time.monotonic()
        with self.lock:
            if self.error is not None and self.failed_at >= came:
                raise copy.copy(self.error)
            if self.token is None or time.monotonic() >= self.renew_at:
                self.token = self.error = None
                try:
                    self.token = ask()
                except VolubileError as error:
                    self.error, self.failed_at = copy.copy(error), time.monotonic()
                    raise
                self.ends_at = time.monotonic() + self.token.lifetime
                self.renew_at = self.ends_at - min(RENEWAL_LEAD, 0.2 * self.token.lifetime)
            return self.token


_slots: dict[tuple[str, frozenset[str]], _Slot] = {}  # by account and scopes
_lock = threading.Lock()


class _TokenIdentity:
    """A token with the scopes an operation needs. One that is refused is replaced once."""

    def __init__(self, pair: ApiKeyPair, base_url: str, scopes: frozenset[str]) -> None:
        self.secrets = self._keys = pair.keys
        self._name = pair.name
        self._base_url = base_url
        self._scopes = scopes
        with _lock:
            self._slot = _slots.setdefault((digest(base_url, *pair.keys), scopes), _Slot())
        self._token: IssuedToken | None = None
        self._ends_at = 0.0
        self._refusals = 0
        self._expiries = 0

    def prepare(self, send: Send) -> None:
        self._token = self._slot.get(lambda: issue_token(send, self._base_url, self._scopes))
        self._ends_at = self._slot.ends_at
        self.secrets = (self._token.token, *self._keys)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.secrets[0]}"
        return request

    def has_another(self, status: int) -> bool:
        if status != 401:
            return False
        with self._slot.lock:
            if self._slot.token is self._token:  # and not a newer one already
                self._slot.token = None
        # Waiting for the rate window may outlast a token. That is no refusal, but must end too.
        if time.monotonic() >= self._ends_at:
            self._expiries += 1
            return self._expiries <= _EXPIRED_ON_THE_WAY
        self._refusals += 1
        return self._refusals <= 1

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        scopes = ", ".join(sorted(self._scopes))
        if status == 403:
            text = (
                f"{operation} is forbidden (403) for a token with the scope {scopes}. Check at {DASHBOARD} that the "
                "account may use this scope."
            )
        else:
            text = (
                f"{operation} refused (401) a token with the scope {scopes}, and a fresh one too. Check the account "
                f"at {DASHBOARD}, or use the API keys directly (auth = api_key)."
            )
        return _refusal(self._name, text, operation, status, reason)


def _forget() -> None:
    """Start anew in a forked child: a lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.Lock()
    _slots.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

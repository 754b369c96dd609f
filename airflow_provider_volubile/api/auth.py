"""Who a request goes out as: one of the account's two keys, or a short-lived token with the scope it needs.

Facts: https://docs.volubile.ai/api-reference/authentication and
https://docs.volubile.ai/api-reference/auth/create-token.

:class:`ApiKeyPair` and :class:`BearerTokens` are plain values. What was learned about them (which key works,
    which tokens are still good) belongs to the process: it is kept per address of the API and pair of keys,
    and shared by all threads and by clients that are made later.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt

from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.api.routes import Route
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError, VolubileInputError

log = logging.getLogger(__name__)

DASHBOARD = "https://eu.volubile.ai/integrations/api"
#: Longest time a token is used for without asking again, in seconds, whatever it claims.
LONGEST_LIFE = 24 * 3600.0
#: A token is renewed this long before its end (seconds), but not earlier than at 80 % of its life.
RENEWAL_LEAD = 60.0

# What a header can carry. Anything longer than any key or token would be an accident.
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,16384}")
_EXPIRED_ON_THE_WAY = 5

Mint = Callable[[frozenset[str]], IssuedToken]


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
        primary = _checked_key(self.primary, f"connection {self.name!r}: the primary API key")
        secondary = None
        if self.secondary and self.secondary.strip():
            secondary = _checked_key(self.secondary, f"connection {self.name!r}: the secondary API key")
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

    def refusal(self, operation: str, status: int) -> VolubileAuthError:
        """The error to raise after a 401 with nothing left to try, or after a 403."""

    def scrub(self, text: str) -> str:
        """Take our secrets out of a text that came from the server."""


def identify(credentials: Credentials, base_url: str, mint: Mint) -> Callable[[Route], Identity]:
    """Return what tells, for each request, who it goes out as.

    :param mint: asks the server for a token with these scopes (:meth:`VolubileClient.issue_token`).
    """
    pair = credentials.pair if isinstance(credentials, BearerTokens) else credentials
    account = _account(pair, base_url)
    if not isinstance(credentials, BearerTokens):
        return lambda route: KeyIdentity(pair, account)
    tokens = _shared_tokens(account)

    def identity(route: Route) -> Identity:
        if route.scope is None:
            return KeyIdentity(pair, account)
        return TokenIdentity(tokens, frozenset({route.scope}), mint, pair.name)

    return identity


# --- keys ---------------------------------------------------------------------------------------------------------

_working: dict[str, int] = {}  # account → which of its keys worked last
_tokens: dict[str, TokenCache] = {}
_lock = threading.Lock()


def _account(pair: ApiKeyPair, base_url: str) -> str:
    return hashlib.sha256("\0".join((base_url, *pair.keys)).encode()).hexdigest()


def _checked_key(key: Any, what: str) -> str:
    text = key.strip() if isinstance(key, str) else ""
    if not text:
        raise VolubileInputError(
            f"{what} is empty: create one at {DASHBOARD} and store it in the connection."
        )
    if not _HEADER_SAFE.fullmatch(text):
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

    def refusal(self, operation: str, status: int) -> VolubileAuthError:
        name = self._pair.name
        if status == 403:
            return VolubileAuthError(
                f"Connection {name!r}: {operation} is forbidden (403) for this account's API key. "
                f"Check the account's rights at {DASHBOARD}; repeating the request does not help.",
                operation=operation,
                status=status,
            )
        which = "both API keys were" if len(self._pair.keys) > 1 else "the API key was"
        return VolubileAuthError(
            f"Connection {name!r}: {which} refused (401) for {operation}. They are missing, disabled, or of a disabled "
            f"account: compare the connection's password and secondary_api_key with {DASHBOARD}.",
            operation=operation,
            status=status,
        )

    def scrub(self, text: str) -> str:
        return _scrub(text, self._pair.keys)


# --- tokens -------------------------------------------------------------------------------------------------------


def token_lifetime(token: str, expires_in: Any, now: float) -> float | None:
    """Seconds a token is good for from its receipt; None when neither it nor its answer says.

    The token's own ``exp - iat`` is taken first, which a clock that goes wrong on either side cannot distort;
    then ``expiresIn``; then ``exp`` against this machine's clock. Where the first two disagree, the shorter
    one holds. More than :data:`LONGEST_LIFE` is cut.

    :param now: this machine's time, as a timestamp.
    :raises ValueError: a life that is over, negative or no number.
    """
    claims = _claims(token)
    issued, expires = _number(claims.get("iat")), _number(claims.get("exp"))
    told = _number(expires_in)
    lives = [told] if told is not None else []
    if expires is not None and issued is not None:
        lives.append(expires - issued)
    elif expires is not None and not lives:
        lives.append(expires - now)
    if not lives:
        return None
    life = min(lives)
    if life <= 0:
        raise ValueError("its life is over before it begins")
    return min(life, LONGEST_LIFE)


def _claims(token: str) -> dict[str, Any]:
    """What a JWT says about itself, unverified; nothing when it is no JWT (documented is one, opaque is
    fine).
    """
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        if value is None:
            return None
        raise ValueError("a time that is no number")
    if isinstance(value, int):
        return float(max(min(value, 10**12), -(10**12)))
    if not math.isfinite(value):
        raise ValueError("a time that is no number")
    return value


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float  # monotonic
    ends_at: float


class TokenCache:
    """The tokens of one account in this process, by scopes. However many threads ask, one token is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[frozenset[str], _Token] = {}
        self._asked: dict[frozenset[str], Future[_Token]] = {}

    def get(self, scopes: frozenset[str], mint: Mint) -> _Token:
        """Return a token that is good for a while; ask for one if there is none.

        Threads that come meanwhile wait for the same answer, and share the error if it is one. Other scopes
        are not held up.
        """
        while True:
            with self._lock:
                token = self._tokens.get(scopes)
                if token is not None and time.monotonic() < token.renew_at:
                    return token
                asked = self._asked.get(scopes)
                if asked is None:
                    mine = self._asked[scopes] = Future()
            if asked is None:
                return self._ask(scopes, mint, mine)
            error = asked.exception()
            if error is None:
                return asked.result()
            if isinstance(error, VolubileError):
                raise copy.copy(error)
            # The thread that asked was stopped from outside: somebody else has to ask.

    def _ask(self, scopes: frozenset[str], mint: Mint, mine: Future[_Token]) -> _Token:
        try:
            issued = mint(scopes)
            now = time.monotonic()
            lead = min(RENEWAL_LEAD, 0.2 * issued.lifetime)
            token = _Token(issued.token, now + issued.lifetime - lead, now + issued.lifetime)
        except BaseException as error:
            self._done(scopes, None)
            mine.set_exception(error)
            raise
        self._done(scopes, token)
        mine.set_result(token)
        return token

    def _done(self, scopes: frozenset[str], token: _Token | None) -> None:
        with self._lock:
            self._asked.pop(scopes, None)
            if token is not None:
                self._tokens[scopes] = token

    def discard(self, scopes: frozenset[str], token: _Token) -> None:
        """Forget a token that was refused, unless a newer one has taken its place."""
        with self._lock:
            if self._tokens.get(scopes) is token:
                del self._tokens[scopes]


def _shared_tokens(account: str) -> TokenCache:
    with _lock:
        return _tokens.setdefault(account, TokenCache())


class TokenIdentity:
    """A token with the scopes an operation needs. One that is refused is replaced once."""

    def __init__(self, tokens: TokenCache, scopes: frozenset[str], mint: Mint, name: str) -> None:
        self._tokens = tokens
        self._scopes = scopes
        self._mint = mint
        self._name = name
        self._token: _Token | None = None
        self._refusals = 0
        self._expiries = 0

    def headers(self) -> dict[str, str]:
        self._token = self._tokens.get(self._scopes, self._mint)
        return {"Authorization": f"Bearer {self._token.value}"}

    def refused(self) -> bool:
        if self._token is None:
            return False
        self._tokens.discard(self._scopes, self._token)
        # Waiting for the rate window may outlast a token; that is nobody's refusal, but must end too.
        if time.monotonic() >= self._token.ends_at:
            self._expiries += 1
            return self._expiries <= _EXPIRED_ON_THE_WAY
        self._refusals += 1
        return self._refusals <= 1

    def answered(self, status: int) -> None:
        pass

    def refusal(self, operation: str, status: int) -> VolubileAuthError:
        scopes = ", ".join(sorted(self._scopes))
        if status == 403:
            return VolubileAuthError(
                f"Connection {self._name!r}: {operation} is forbidden (403) for a token with the scope {scopes}. "
                f"Check at {DASHBOARD} that the account may use this scope.",
                operation=operation,
                status=status,
            )
        return VolubileAuthError(
            f"Connection {self._name!r}: {operation} refused (401) a token with the scope {scopes}, and a fresh one too. "
            f"Check the account at {DASHBOARD}, or use the API keys directly (auth = api_key).",
            operation=operation,
            status=status,
        )

    def scrub(self, text: str) -> str:
        return _scrub(text, () if self._token is None else (self._token.value,))


def check_token(token: Any) -> str:
    """Return a token that a header can carry.

    :raises ValueError: it is none.
    """
    if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
        raise ValueError("no usable token in it")
    return token


def _scrub(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _forget() -> None:
    """Start anew in a forked child: a lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.Lock()
    _tokens.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

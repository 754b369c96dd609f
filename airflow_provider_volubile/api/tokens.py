"""Bearer tokens: how long they live, one for many threads, renewed in time.

Facts: https://docs.volubile.ai/api-reference/auth/create-token. Claims are read to know when to renew, not to trust
them: whether a token is good is for the server to say.
"""

from __future__ import annotations

import copy
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import jwt

from airflow_provider_volubile.api.models import IssuedToken
from airflow_provider_volubile.api.routes import DASHBOARD, SCOPES
from airflow_provider_volubile.exceptions import VolubileAuthError, VolubileError, VolubileInputError

#: Longest time a token is used for without asking again, in seconds, whatever it claims.
LONGEST_LIFE = 24 * 3600.0
#: A token is renewed this long before its end (seconds), but not earlier than at 80 % of its life.
RENEWAL_LEAD = 60.0

# What a header can carry. Anything longer than any key or token would be an accident.
HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,16384}")
_EXPIRED_ON_THE_WAY = 5
_DIGITS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

Mint = Callable[[frozenset[str]], IssuedToken]


def check_scopes(scopes: Any) -> frozenset[str]:
    """The scopes of a token, given as one text or several.

    :raises VolubileInputError: there is none, or one that the API does not know.
    """
    wanted = [scopes] if isinstance(scopes, str) or not isinstance(scopes, Iterable) else list(scopes)
    unknown = [scope for scope in wanted if not isinstance(scope, str) or scope not in SCOPES]
    if unknown or not wanted:
        told = ", ".join(map(repr, unknown)) or "none at all"
        raise VolubileInputError(f"scopes: {told}; the API knows {', '.join(sorted(SCOPES))}.")
    return frozenset(wanted)


def issued_token(
    token: Any, answer: Any, scopes: frozenset[str], headers: Mapping[str, str] | None = None
) -> IssuedToken:
    """Make a token of what the server answered.

    :param headers: of its answer, whose ``Date`` is the server's time.
    :raises ValueError: there is none that a header can carry, or its life is over or unknown.
    """
    if not isinstance(token, str) or not HEADER_SAFE.fullmatch(token):
        raise ValueError("holds no usable token")
    now = datetime.now(UTC)
    clock = None
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        clock = parsedate_to_datetime((headers or {})["Date"]).timestamp()
    life = token_lifetime(token, answer.get("expiresIn"), now.timestamp(), clock)
    if life is None:
        raise ValueError("does not say how long its token lives")
    return IssuedToken(token, scopes, life, now + timedelta(seconds=life))


def token_lifetime(token: str, expires_in: Any, now: float, clock: float | None = None) -> float | None:
    """Seconds a token is good for from its receipt; None when neither it nor its answer says.

    The shorter one of ``expiresIn`` and what the token says itself: ``exp - iat``, which a clock that goes wrong on
    either side cannot distort; without ``iat``, ``exp`` against the server's clock. Against this machine's
    only where nothing else is known. More than :data:`LONGEST_LIFE` is cut.

    :param now: this machine's time, as a timestamp.
    :param clock: the server's, if it told.
    :raises ValueError: a life that is over, negative or no number.
    """
    claims = _claims(token)
    issued, expires = _number(claims.get("iat")), _number(claims.get("exp"))
    told = _number(expires_in)
    lives = [told] if told is not None else []
    if expires is not None:
        if issued is not None:
            lives.append(expires - issued)
        elif clock is not None and (expires > clock or not lives):
            lives.append(expires - clock)
        elif not lives:
            lives.append(expires - now)
    if not lives:
        return None
    life = min(lives)
    if life <= 0:
        raise ValueError("holds a token whose life is over before it begins")
    return min(life, LONGEST_LIFE)


def _claims(token: str) -> dict[str, Any]:
    """What a JWT says about itself, unverified; nothing when it is no JWT (documented is one, opaque is fine)."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        if value is None:
            return None
        raise ValueError("holds a token with a time that is no number")
    if isinstance(value, int):
        return float(max(min(value, 10**12), -(10**12)))
    if not math.isfinite(value):
        raise ValueError("holds a token with a time that is no number")
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

        Threads that come meanwhile wait for the same answer, and share the error if it is one. Other scopes are not
        held up.
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


def said(reason: str) -> str:
    """The server's own words, as the end of a message."""
    return f" The server says: {reason}" if reason else ""


class TokenIdentity:
    """A token with the scopes an operation needs. One that is refused is replaced once."""

    def __init__(
        self, tokens: TokenCache, scopes: frozenset[str], mint: Mint, name: str, keys: tuple[str, ...]
    ) -> None:
        self._tokens = tokens
        self._scopes = scopes
        self._mint = mint
        self._name = name
        self._keys = keys
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

    def refusal(self, operation: str, status: int, reason: str) -> VolubileAuthError:
        scopes = ", ".join(sorted(self._scopes))
        if status == 403:
            return VolubileAuthError(
                f"Connection {self._name!r}: {operation} is forbidden (403) for a token with the scope {scopes}. "
                f"Check at {DASHBOARD} that the account may use this scope.{said(reason)}",
                operation=operation,
                status=status,
            )
        return VolubileAuthError(
            f"Connection {self._name!r}: {operation} refused (401) a token with the scope {scopes}, and a fresh "
            f"one too. Check the account at {DASHBOARD}, or use the API keys directly (auth = api_key).{said(reason)}",
            operation=operation,
            status=status,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._keys if self._token is None else (self._token.value, *self._keys)

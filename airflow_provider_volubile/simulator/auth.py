"""Who is asking: the pair of API keys, and the tokens issued for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from airflow_provider_volubile.simulator.clock import Clock
from airflow_provider_volubile.simulator.config import Config

SCOPES = tuple(
    f"{area}:{right}" for area in ("calls", "campaigns", "agents", "integrations") for right in ("read", "write")
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request identified itself with.

    :param kind: ``primary``, ``secondary``, ``token``, ``none`` or ``bad``.
    :param problem: why it is not accepted, None if it is.
    :param scopes: what a token allows; None for a key, which allows everything.
    """

    kind: str
    problem: str | None = None
    scopes: frozenset[str] | None = None

    @property
    def of_account(self) -> bool:
        """Whether it belongs to the account, though it may be revoked or expired."""
        return self.kind not in ("none", "bad")


@dataclass(frozen=True, slots=True)
class _Token:
    scopes: frozenset[str]
    expires: float


class Auth:
    """Keeps keys and tokens. A token is accepted for its true life, whatever it claims."""

    def __init__(self, keys: Mapping[str, str], seed: int, clock: Clock, config: Config) -> None:
        self.active = dict.fromkeys(keys, True)
        self._names = {value: name for name, value in keys.items()}
        self._tokens: dict[str, _Token] = {}
        self._issued = 0
        self._secret = hashlib.sha256(f"volubile simulator {seed}".encode()).hexdigest()
        self._clock = clock
        self._config = config

    def identify(self, api_key: str | None, authorization: str | None) -> Credential:
        """Judge the ``X-Api-Key`` header or, without one, the ``Authorization`` header."""
        if api_key is not None:
            name = self._names.get(api_key)
            if name is None:
                return Credential("bad", "API key is not known")
            return Credential(name, None if self.active[name] else "API key is disabled")
        if authorization is None:
            return Credential("none", "Neither API key nor bearer token")
        scheme, _, value = authorization.partition(" ")
        token = self._tokens.get(value) if scheme.lower() == "bearer" else None
        if token is None:
            return Credential("bad", "Token is not valid")
        expired = self._clock.wall() >= token.expires
        return Credential("token", "Token has expired" if expired else None, token.scopes)

    def issue(self, scopes: Iterable[str]) -> dict[str, Any]:
        """Return the answer to a request for a token."""
        config = self._config
        wall = self._clock.wall()
        self._issued += 1
        if self._issued % 1000 == 0:  # a lapsed token is told from an unknown one, but not for ever
            self._tokens = {value: token for value, token in self._tokens.items() if token.expires > wall - 3600}
        granted = list(dict.fromkeys(scopes))
        jti = hashlib.sha256(f"{self._secret} {self._issued}".encode()).hexdigest()[:32]
        claims: dict[str, Any] = {
            "iss": "volubile-simulator",
            "sub": "simulated-account",
            "scope": " ".join(granted),
            "iat": int(wall),
            "exp": int(wall + config.token_life),
            "jti": jti,
        } | config.token_claims
        claims = {name: claim for name, claim in claims.items() if claim is not None}
        if config.token_format == "jwt":
            value = jwt.api_jws.encode(_compact_json(claims), self._secret, algorithm="HS256")
        else:
            value = f"opaque-{jti}"
        self._tokens[value] = _Token(frozenset(granted), wall + config.token_life)
        expires_in = config.token_life if config.token_expires_in is None else config.token_expires_in
        return {"token": value, "expiresIn": int(expires_in), "tokenType": "Bearer"}

    def revoke_tokens(self) -> int:
        """Make every token issued so far invalid; return how many there were."""
        count = len(self._tokens)
        self._tokens.clear()
        return count


def _compact_json(claims: dict[str, Any]) -> bytes:
    # Not jwt.encode: that refuses the absurd claims which a test may want to see handled.
    return json.dumps(claims, separators=(",", ":")).encode()

"""Authentication: the pair of API keys, and the tokens issued for them."""

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
    """The credential of a request.

    :param kind: ``primary``, ``secondary``, ``token``, ``none`` or ``bad``.
    :param problem: why the credential is refused, None if it is accepted.
    :param scopes: what a token allows; None for a key, which allows everything.
    """

    kind: str
    problem: str | None = None
    scopes: frozenset[str] | None = None

    @property
    def of_account(self) -> bool:
        """Whether the credential belongs to the account. It may be revoked or expired."""
        return self.kind not in ("none", "bad")


@dataclass(frozen=True, slots=True)
class _Token:
    scopes: frozenset[str]
    expires: float


class Auth:
    """Keep keys and tokens. A token is accepted for ``token_life`` seconds, whatever it claims."""

    def __init__(self, keys: Mapping[str, str], seed: int, clock: Clock, config: Config) -> None:
        self.active = dict.fromkeys(keys, True)
        self._names = {value: name for name, value in keys.items()}
        self._tokens: dict[str, _Token] = {}
        self._issued = 0
        self._secret = hashlib.sha256(f"volubile simulator {seed}".encode()).hexdigest()
        self._clock = clock
        self._config = config

    def identify(self, api_key: str | None, authorization: str | None) -> Credential:
        """Check the ``X-Api-Key`` header or, without one, the ``Authorization`` header."""
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
        if self._issued % 1000 == 0:  # forget tokens that expired over an hour ago: they then count as unknown
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
        """Revoke every token issued so far; return their number."""
        count = len(self._tokens)
        self._tokens.clear()
        return count


def _compact_json(claims: dict[str, Any]) -> bytes:
    # jwt.encode refuses absurd claims, which some tests need.
    return json.dumps(claims, separators=(",", ":")).encode()

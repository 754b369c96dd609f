"""What a connection's test finds out: each key by itself, in the mode the connection uses, within seconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from airflow.sdk.log import mask_secret

from airflow_provider_volubile.api.addresses import find_proxy
from airflow_provider_volubile.api.auth import ApiKeyPair
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.headers import RateLimit
from airflow_provider_volubile.api.rate_window import LENGTH, RateWindow
from airflow_provider_volubile.api.routes import DASHBOARD, LIST_AGENTS
from airflow_provider_volubile.api.sending import RetryBudget
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileInputError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
)
from airflow_provider_volubile.hooks.settings import DEFAULT_HOST, EXTRA_FIELDS, Settings, credentials
from airflow_provider_volubile.masking import Secret, mask_secrets

#: Somebody is waiting for the answer: seconds for the whole test, and for one step of it.
TEST_SECONDS = 12.0
STEP_SECONDS = 4.0

T = TypeVar("T")


@dataclass(frozen=True)
class _Account:
    """What one key can see.

    :param agents: ids of the first agents, of ``total`` (None when the answer does not tell).
    :param token_life: seconds; None where no token was asked for.
    """

    agents: frozenset[str]
    total: int | None
    limit: RateLimit | None
    token_life: float | None


class Verdict(NamedTuple):
    """What a test found out.

    :param good: whether everything the connection holds works.
    :param text: for a person: which key works, how, with which limits; or what is wrong and what to do. It holds no
        key, no token and no number.
    :param may_pass: what is wrong may be over in a while.
    """

    good: bool
    text: str
    may_pass: bool = False


def check(settings: Settings) -> Verdict:
    """Ask with each key for the account's agents, which changes nothing."""
    try:
        found = _within(TEST_SECONDS, lambda: _check(settings))
    except TimeoutError:
        found = _unreachable(settings, f"No complete answer of {_host(settings)} in {TEST_SECONDS:g} s.")
    except VolubileInputError as error:
        found = Verdict(False, str(error))
    return found._replace(
        text=mask_secrets(found.text, [key.reveal() for key in (settings.primary, settings.secondary) if key])
    )


def _check(settings: Settings) -> Verdict:
    keys = {"primary": settings.primary, "secondary": None if _no_spare(settings) else settings.secondary}
    accounts: dict[str, _Account] = {}
    refused: dict[str, VolubileAuthError] = {}
    for name, key in keys.items():
        if key is None:
            continue
        try:
            accounts[name] = _ask(settings, key)
        except VolubileAuthError as error:
            refused[name] = error
        except VolubileUnavailable as error:
            return _beside(settings, refused, _unreachable(settings, str(error)))
        except VolubileRateLimitError:
            text = (
                f"{_host(settings)} answers, but the account's request window is full (429), so the {name} API key "
                f"could not be tried. Others use the account heavily; test again in {LENGTH:g} s."
            )
            return _beside(settings, refused, Verdict(False, text, may_pass=True))
        except (VolubileNotFound, VolubileProtocolError, VolubileRequestRefused) as error:
            what = "it does not know GET /v1/agents (404)." if isinstance(error, VolubileNotFound) else str(error)
            text = (
                f"{_host(settings)} does not answer as Volubile's API does: {what} The API address is {DEFAULT_HOST} "
                "unless Volubile told you another one."
            )
            # It may be a page of somebody's maintenance.
            return _beside(settings, refused, Verdict(False, text, may_pass=True))
    return _judge(settings, accounts, refused)


def _ask(settings: Settings, key: Secret) -> _Account:
    pair = ApiKeyPair(key, name="tested")
    with VolubileClient(
        settings.base_url,
        credentials(settings.auth, pair),
        window=RateWindow(),  # not the shared one: a test does not queue behind the tasks of this process
        timeout=min(settings.timeout, STEP_SECONDS),
        retry=RetryBudget(attempts=1, seconds=0, rate_limit_seconds=0),
        on_secret=mask_secret,
    ) as client:
        life = None
        if settings.auth == "bearer":
            # Asked for here and not left to the listing, which would be content with a token of an earlier test.
            life = client.issue_token([str(LIST_AGENTS.scope)]).lifetime
        page = client.list_agents()
        return _Account(frozenset(agent.id for agent in page.content), page.total_elements, client.rate_limit, life)


def _no_spare(settings: Settings) -> bool:
    return settings.secondary == settings.primary


def _judge(settings: Settings, accounts: dict[str, _Account], refused: dict[str, VolubileAuthError]) -> Verdict:
    host = _host(settings)
    faults = [_refusal(settings, name, error) for name, error in refused.items()]
    if not accounts:
        faults.append(
            f"Compare the stored keys with {DASHBOARD}, and see there whether the account is enabled and whether "
            f"{host} is its API."
        )
        return Verdict(False, " ".join(faults))
    if refused:
        faults.append(
            f"The {next(iter(accounts))} API key works, so tasks go on, without a spare: create a new key at "
            f"{DASHBOARD} and store it in place of the refused one."
        )
    if _no_spare(settings):
        faults.append(
            "Both fields hold the same key: it is no spare. Store the account's other key in secondary_api_key."
        )
    if len({account.agents for account in accounts.values() if account.agents}) > 1 and not frozenset.intersection(
        *(account.agents for account in accounts.values())
    ):
        faults.append("The two API keys belong to different accounts: they see different agents. Store a pair of one.")
    if settings.unknown:
        faults.append(
            f"The extra holds {', '.join(map(repr, settings.unknown))}, which means nothing here; it takes "
            f"{', '.join(sorted(EXTRA_FIELDS))}. Airflow may show such a field unmasked."
        )
    account = list(accounts.values())[-1]
    facts = [_limits(account)]
    if account.total is not None:
        facts.append(f"The account has {account.total} agent{'s' * (account.total != 1)}.")
    if faults:
        return Verdict(False, " ".join(faults + facts))
    which = "both API keys" if len(accounts) == 2 else "the primary API key"
    how = "auth = api_key"
    if account.token_life is not None:
        how = f"auth = bearer, tokens of {account.token_life:g} s"
    facts.insert(0, f"{host} accepts {which} ({how}).")
    if settings.secondary is None:
        facts.append("No secondary key is stored, so the primary cannot be replaced without downtime.")
    return Verdict(True, " ".join(facts))


def _refusal(settings: Settings, name: str, error: VolubileAuthError) -> str:
    if error.status == 403:
        return (
            f"The {name} API key is known, but {error.operation} is forbidden to it (403): check the account's rights."
        )
    if settings.auth == "bearer" and error.operation == LIST_AGENTS.operation:
        return f"The {name} API key is issued a token, but the token is refused (401)."
    return f"The {name} API key is refused (401): it was mistyped, deleted or disabled."


def _beside(settings: Settings, refused: Mapping[str, VolubileAuthError], verdict: Verdict) -> Verdict:
    """A verdict on one key, beside what is known of the other: a key that is refused stays so."""
    known = [_refusal(settings, name, error) for name, error in refused.items()]
    return Verdict(False, " ".join([*known, verdict.text]), may_pass=verdict.may_pass and not known)


def _limits(account: _Account) -> str:
    if account.limit is None:
        return "The answers tell no rate limit, though Volubile's always do: is something in between removing headers?"
    return (
        f"Account limit: {account.limit.limit} requests per {LENGTH:g} s, "
        f"{account.limit.remaining} left in this window."
    )


def _unreachable(settings: Settings, what: str) -> Verdict:
    """Add what is not in the connection and decides all the same: the machine, its proxy, its certificates."""
    surroundings = [f"Asked from the machine {socket.gethostname()}"]
    if settings.base_url.startswith("https:"):
        with suppress(ValueError):  # which the client tells of
            if proxy := find_proxy(settings.base_url):
                surroundings.append(f"through the proxy {proxy.hostname}:{proxy.port or 'default port'}")
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle:
            surroundings.append(f"with the certificates in {bundle}")
    return Verdict(False, f"{what} {', '.join(surroundings)}; workers may be elsewhere.", may_pass=True)


def _host(settings: Settings) -> str:
    return urlsplit(settings.base_url).netloc


def _within(seconds: float, function: Callable[[], T]) -> T:
    """Run a function and wait for it so long; name resolution knows no time limit of its own.

    :raises TimeoutError: it takes longer; it is left to end by itself.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="volubile-connection-test", daemon=True).start()
    return future.result(seconds)

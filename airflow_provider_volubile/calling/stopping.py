"""Stopping campaigns when somebody stops the task that waits for them, and letting them go on again.

Pausing is remembered in an Airflow Variable, since neither Volubile nor the task's own store (which a triggerer cannot
write) can keep it: only what the provider paused itself is un-paused by a later try, never what a person paused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import Variable

from airflow_provider_volubile._airflow import task_states
from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling.handles import CampaignRef
from airflow_provider_volubile.exceptions import VolubileError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.waiting.find_calls import CALL_TIME_TOLERANCE

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient

log = logging.getLogger(__name__)

KillAction = Literal["pause", "cancel", "leave"]
KILL_ACTIONS: tuple[KillAction, ...] = ("pause", "cancel", "leave")

PAUSED_BY_US = "volubile_paused_{campaign_id}"


# States in which a task will not go on by itself. In any other (deferred: the trigger only moved to another
# triggerer; none, scheduled, queued, running: it was cleared and starts again, or its worker shuts down) the campaign
# must go on too.
STOPPED_STATES = frozenset({"failed", "success", "skipped", "upstream_failed", "removed"})


def stop_if_killed(hook: VolubileHook, ti: Any, campaigns: Sequence[CampaignRef], action: KillAction) -> None:
    """Pause or cancel the campaigns of a task that somebody stopped. Blocking; for ``on_kill`` of both sides.

    :param ti: the task instance, as an operator or a trigger has it.
    """
    if action == "leave" or not campaigns or not is_stopped(ti):
        return
    try:
        stop_campaigns(hook, campaigns, action)
        if action == "pause" and not is_stopped(ti):
            # It was cleared meanwhile, and its new try may have looked for a pause before there was one.
            resume_campaigns(hook.client(), campaigns)
    except VolubileError as error:
        log.error("The task was stopped, but its campaigns were not: %s", error)


def is_stopped(ti: Any) -> bool:
    """Whether somebody stopped the task, so that it will not go on by itself. Asks the API server: blocking."""
    states = task_states(ti)
    # None at all: its Dag run was deleted.
    return not states or any(state in STOPPED_STATES for state in states)


def stop_campaigns(hook: VolubileHook, campaigns: Sequence[CampaignRef], action: KillAction) -> None:
    """Pause or cancel what still runs. Calls already placed cannot be taken back.

    :raises VolubileError: at least one campaign could not be stopped; the others were.
    """
    client = hook.client()
    failures = []
    for campaign in campaigns:
        campaign_id = campaign["id"]
        if campaign_id is None:
            log.warning(
                "Campaign %s goes on: it was only found through its calls, so its id is not known. "
                "Stop it in Volubile's dashboard.",
                campaign["name"],
            )
            continue
        try:
            if client.get_campaign(campaign_id).status != "ACTIVE":
                continue
            if action == "pause":
                # Written first: a pause that nobody remembers would never end.
                Variable.set(
                    PAUSED_BY_US.format(campaign_id=campaign_id),
                    datetime.now(UTC).isoformat(timespec="seconds"),
                    description=f"The Airflow provider paused campaign {campaign['name']}",
                )
            client.update_campaign_status(campaign_id, "PAUSED" if action == "pause" else "CANCELLED")
        except VolubileError as error:
            failures.append(f"{campaign['name']}: {error}")
        else:
            log.warning(
                "Campaign %s was %s because the task was stopped. Calls already placed go on.",
                campaign["name"],
                "paused" if action == "pause" else "cancelled",
            )
    if failures:
        raise VolubileError("; ".join(failures))


def resume_campaigns(client: VolubileClient, campaigns: Sequence[CampaignRef]) -> None:
    """Let go on what :func:`stop_campaigns` paused, and nothing that a person paused."""
    for campaign in campaigns:
        campaign_id = campaign["id"]
        key = PAUSED_BY_US.format(campaign_id=campaign_id)
        paused_at = Variable.get(key, default=None) if campaign_id else None
        if campaign_id is None or paused_at is None:
            continue
        if client.get_campaign(campaign_id).status == "PAUSED":
            if _called_since(client, campaign["name"], datetime.fromisoformat(paused_at)):
                log.warning(
                    "Campaign %s stays paused: it placed calls after an earlier try had paused it, so a person resumed "
                    "it and paused it again. Resume it in Volubile's dashboard.",
                    campaign["name"],
                )
            else:
                client.update_campaign_status(campaign_id, "ACTIVE")
                log.info("Campaign %s goes on: an earlier try had paused it.", campaign["name"])
        Variable.delete(key)


def forget_pause(campaign_id: str) -> None:
    """Somebody sets the campaign's status on purpose: no later try changes it."""
    key = PAUSED_BY_US.format(campaign_id=campaign_id)
    if Variable.get(key, default=None) is not None:
        Variable.delete(key)


def _called_since(client: VolubileClient, name: str, paused_at: datetime) -> bool:
    """Whether a campaign placed calls after a pause. The service does not tell who changed a campaign, or when."""
    calls = client.list_calls(campaign=name, page=1, size=wire.MAX_PAGE_SIZE, sort=wire.NEWEST_FIRST).content
    times = [at for call in calls if (at := call.time)]
    return bool(times) and max(times) > paused_at + CALL_TIME_TOLERANCE

"""The routes of campaigns."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo, available_timezones

from pydantic import ValidationError
from starlette.responses import Response

from airflow_provider_volubile.simulator import bodies, chance
from airflow_provider_volubile.simulator.campaigns import ACTIVE, Campaign
from airflow_provider_volubile.simulator.incoming import (
    Incoming,
    Refused,
    dialling_agent,
    json_response,
    parse,
    path_id,
    read_json,
)
from airflow_provider_volubile.simulator.schedule import WEEKDAYS, Schedule
from airflow_provider_volubile.simulator.state import State

_DEFAULT_ZONE = "Europe/Paris"


def create_campaign(incoming: Incoming) -> Response:
    state = incoming.state
    body = parse(incoming, bodies.CreateCampaign)
    agent = dialling_agent(state, body.agentId)
    timezone = _campaign_zone(state, body.timezone)
    recipients = [{"phone": one.phone, "context": one.context} for one in body.recipients or ()]
    campaign_id = chance.uuid4(state.options.seed, "campaign", len(state.submissions) + 1)
    incoming.submission = state.submit(
        "createCampaign", agent["id"], len(recipients), name=body.name, campaign_id=campaign_id
    )
    view = {
        "id": campaign_id,
        "name": body.name,
        "agentId": agent["id"],
        "startDate": body.startDate,
        "timeSlots": [slot.model_dump() for slot in body.timeSlots],
        "batchSize": body.batchSize,
        "retry": body.retry and body.retry.model_dump(),
        "days": body.days,
        "status": ACTIVE,
        "timezone": timezone,
    }
    schedule = Schedule(
        start_date=date.fromisoformat(body.startDate),
        days=frozenset(map(WEEKDAYS.index, body.days)),
        slots=body.slots(),
        zone=ZoneInfo(timezone),
    )
    campaign = state.dialler.add(view, agent, recipients, schedule, incoming.submission.seq)
    return json_response(campaign.view, 201)


def get_campaign(incoming: Incoming) -> Response:
    return json_response(_campaign(incoming).view)


def update_campaign_status(incoming: Incoming) -> Response:
    campaign = _campaign(incoming)
    try:
        status = bodies.CampaignStatus.validate_python(read_json(incoming))
    except ValidationError as error:
        raise Refused(400, f"Body must be a JSON string: {bodies.problem(error)}") from None
    if not incoming.state.dialler.set_status(campaign, status):
        raise Refused(400, f"A {campaign.status} campaign cannot become {status}")
    return json_response(campaign.view)


def _campaign(incoming: Incoming) -> Campaign:
    campaign = incoming.state.dialler.campaigns.get(path_id(incoming))
    if campaign is None:
        raise Refused(404, "Campaign not found")
    return campaign


def _campaign_zone(state: State, asked: str | None) -> str:
    handling = state.config.campaign_timezone
    if asked is None or handling == "ignored":
        return _DEFAULT_ZONE
    if handling == "refused":
        raise Refused(400, "timezone: unknown property")
    if asked not in available_timezones():
        raise Refused(400, f"timezone {asked!r} is unknown")
    return asked

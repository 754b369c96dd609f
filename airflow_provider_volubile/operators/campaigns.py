"""Campaigns as tasks: create one and wait for everybody's outcome; pause, resume or cancel one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from airflow.sdk import Context

from airflow_provider_volubile.calling.handles import SubmissionHandle, handles_and_ids
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.operators.submission import DEFERRABLE, OnUnknown, SubmissionOperator, WaitFor
from airflow_provider_volubile.tasks import check_choice, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_volubile.calling.kinds import Campaigns
    from airflow_provider_volubile.calling.stopping import KillAction

WORKING_DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY")


class VolubileCreateCampaignOperator(SubmissionOperator):
    """Have an agent call people within calling hours, and wait until each of them has an outcome.

    More than 1,000 recipients become several campaigns, each with the same settings. Nobody is called twice by a
    retry: see :doc:`/reliability`. Returns a :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle`.

    API facts: `Create campaign <https://docs.volubile.ai/api-reference/campaigns/create>`__.

    :param name: the campaign's name; a short suffix is added, since calls are tied to campaigns by name only.
    :param time_slots: one or two, such as ``["09:30-12:00", "14:00-18:30"]``, on the clock of ``timezone``.
    :param campaign_start_date: first day of calls: a date, ISO text or an aware datetime; today in ``timezone`` by
        default.
    :param days: weekdays on which calls may be placed, in English.
    :param batch_size: calls per day and campaign, 1 to 1000.
    :param redial: call again whom nobody answered: ``{"max": 2, "delay": 90, "retry_on": ["NO_ANSWER"]}``. The unit
        of ``delay`` is not documented; minutes are assumed.
    :param timezone: IANA zone of the time slots. Documented in answers only: if the service refuses it, the campaign
        is created without it and a warning tells the zone it got.
    :param extra_fields: further members of the request, for what the service may add.
    :param timeout: how long to wait, in seconds; by default a week after the schedule has everyone called once.
    :param on_kill_action: when a person stops the waiting task: ``pause`` the campaigns, ``cancel`` or ``leave`` them.
        Calls already placed cannot be taken back.

    See :class:`~airflow_provider_volubile.operators.submission.SubmissionOperator` for the other parameters.
    """

    template_fields: Sequence[str] = (
        "name",
        "time_slots",
        "campaign_start_date",
        "days",
        "batch_size",
        "redial",
        "timezone",
        "extra_fields",
        *SubmissionOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SubmissionOperator.template_fields_renderers,
        "time_slots": "json",
        "redial": "json",
        "extra_fields": "json",
    }

    def __init__(
        self,
        *,
        name: str,
        time_slots: Iterable[Any],
        campaign_start_date: date | str | None = None,
        days: Iterable[str] = WORKING_DAYS,
        batch_size: int | str = 1000,
        redial: Mapping[str, Any] | None = None,
        timezone: str = "Europe/Paris",
        extra_fields: Mapping[str, Any] | None = None,
        on_kill_action: KillAction = "pause",
        agent_id: str,
        recipients: Any,
        phone_field: str = "phone",
        context_fields: Sequence[str] | None = None,
        default_region: str | None = None,
        strict_numbers: bool = False,
        wait_for_completion: bool = True,
        wait_for: WaitFor = "ended",
        poll_interval: float = 30,
        timeout: float | None = None,
        deferrable: bool = DEFERRABLE,
        on_unknown: OnUnknown = "fail",
        confirmation_timeout: float = 300,
        allow_resubmit: bool = False,
        outcomes_path: str | None = None,
        max_missing: int | None = None,
        min_success_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            agent_id=agent_id,
            recipients=recipients,
            phone_field=phone_field,
            context_fields=context_fields,
            default_region=default_region,
            strict_numbers=strict_numbers,
            wait_for_completion=wait_for_completion,
            wait_for=wait_for,
            poll_interval=poll_interval,
            timeout=timeout,
            deferrable=deferrable,
            on_unknown=on_unknown,
            confirmation_timeout=confirmation_timeout,
            allow_resubmit=allow_resubmit,
            outcomes_path=outcomes_path,
            max_missing=max_missing,
            min_success_ratio=min_success_ratio,
            **kwargs,
        )
        self.name = name
        self.time_slots = time_slots
        self.campaign_start_date = campaign_start_date
        self.days = days
        self.batch_size = batch_size
        self.redial = redial
        self.timezone = timezone
        self.extra_fields = extra_fields
        self.on_kill_action = on_kill_action

    def make_kind(self) -> Campaigns:
        from airflow_provider_volubile.calling.kinds import Campaigns
        from airflow_provider_volubile.calling.schedule import Redial, Schedule

        return Campaigns(
            agent_id=self.agent_id,
            # One redial rule holds for all campaigns of a submission.
            settings={"redial": Redial.parse(self.redial).dump()},
            title=self.name,
            schedule=partial(
                Schedule.check,
                time_slots=self.time_slots,
                campaign_start_date=self.campaign_start_date,
                days=self.days,
                batch_size=self.batch_size,
                redial=self.redial,
                timezone=self.timezone,
            ),
            extra_fields=self.extra_fields or {},
        )


class CampaignStatus(TypedDict):
    """What :class:`VolubileUpdateCampaignStatusOperator` returns."""

    campaign_id: str
    status: str


class VolubileUpdateCampaignStatusOperator(VolubileOperator):
    """Pause, resume or cancel a campaign, or all campaigns of a submission.

    API facts: `Update campaign status <https://docs.volubile.ai/api-reference/campaigns/update-status>`__. Which
    transitions the service allows is not documented; calls already placed go on. Repeating it does no harm. Returns a
    list of :class:`CampaignStatus`.

    :param campaign_id: a campaign's id, the handle that :class:`VolubileCreateCampaignOperator` returned, or a list of
        them.
    :param status: ``ACTIVE``, ``PAUSED`` or ``CANCELLED``.
    """

    template_fields: Sequence[str] = ("campaign_id", "status", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"campaign_id": "json"}

    def __init__(
        self,
        *,
        campaign_id: str | SubmissionHandle | Sequence[str | SubmissionHandle],
        status: Literal["ACTIVE", "PAUSED", "CANCELLED"] | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.status = status

    @fail_without_retry()
    def execute(self, context: Context) -> list[CampaignStatus]:
        from airflow_provider_volubile.api import wire
        from airflow_provider_volubile.calling.stopping import forget_pause

        check_choice("status", self.status, wire.CAMPAIGN_STATUSES)
        client = self.hook.client()
        result = []
        for campaign_id in campaign_ids(self.campaign_id):
            try:
                campaign = client.update_campaign_status(campaign_id, self.status)
            except VolubileNotFound:
                raise VolubileInputError(f"campaign_id {campaign_id!r}: this account has no such campaign.") from None
            forget_pause(campaign_id)
            self.log.info("Campaign %s is %s.", campaign_id, campaign.status or self.status)
            result.append(CampaignStatus(campaign_id=campaign_id, status=campaign.status or self.status))
        return result


def campaign_ids(value: Any) -> list[str]:
    """The ids in what a user may give for campaigns, each once.

    :raises VolubileInputError: there is none.
    """
    from airflow_provider_volubile.api import wire

    found: dict[str, None] = {}
    for item in handles_and_ids(value, "campaign_id"):
        if isinstance(item, str):
            found[wire.check_id(item, "campaign_id")] = None
            continue
        for campaign in item.get("campaigns", ()):
            if campaign["id"] is None:
                raise VolubileInputError(
                    f"campaign_id: the id of campaign {campaign['name']!r} is not known, it was only found through its "
                    "calls. Look it up in Volubile's dashboard and give it as text."
                )
            found[campaign["id"]] = None
    if not found:
        raise VolubileInputError("campaign_id holds no campaign; it must be an id, a handle, or a list of them.")
    return list(found)

"""A sensor for campaigns that another task, or somebody else, created."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from airflow.sdk import XComArg

from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle, handles_and_ids
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound
from airflow_provider_volubile.sensors.wait_sensor import WaitSensor


class VolubileCampaignSensor(WaitSensor):
    """Wait until everyone in a campaign has an outcome.

    :param campaign: the handle that
        :class:`~airflow_provider_volubile.operators.campaigns.VolubileCreateCampaignOperator` returned, or a
        campaign's id.
    :param recipients: how many people the campaign calls. Needed with a plain id, since the API does not tell; a
        campaign is over when so many have an outcome.

    See :class:`~airflow_provider_volubile.sensors.wait_sensor.WaitSensor` for the other parameters.
    """

    template_fields: Sequence[str] = ("campaign", "recipients", "volubile_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"campaign": "json"}

    def __init__(
        self,
        *,
        campaign: SubmissionHandle | str | XComArg,
        recipients: int | str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign
        self.recipients = recipients

    @cached_property
    def handle(self) -> SubmissionHandle:
        from airflow_provider_volubile.api import wire

        given = list(handles_and_ids(self.campaign, "campaign"))
        if len(given) != 1:
            raise VolubileInputError(
                f"campaign holds {len(given)} ids or handles; the sensor waits for one. For several, map it over them: "
                "VolubileCampaignSensor.partial(…).expand(campaign=…)."
            )
        if isinstance(given[0], str):
            return self._of_id(wire.check_id(given[0], "campaign"))
        return self._of_handle(given[0])

    @staticmethod
    def _of_handle(handle: SubmissionHandle) -> SubmissionHandle:
        if not handle.get("campaigns"):
            raise VolubileInputError(
                f"campaign: a handle of kind {handle.get('kind')!r} has no campaigns; for calls there is "
                "VolubileCallsSensor."
            )
        return SubmissionHandle(**handle)

    def _of_id(self, campaign_id: str) -> SubmissionHandle:
        from airflow_provider_volubile.calling.schedule import Redial

        text = str(self.recipients).strip()
        people = int(text) if text.isdecimal() else 0
        if people < 1:
            raise VolubileInputError(
                f"recipients is {self.recipients!r}: with a plain campaign id, say how many people it calls; "
                "the API does not tell. A handle holds the number."
            )
        try:
            campaign = self.hook.client(background=True).get_campaign(campaign_id)
        except VolubileNotFound:
            raise VolubileInputError(f"campaign {campaign_id!r}: this account has no such campaign.") from None
        if not campaign.name:
            raise VolubileInputError(f"Campaign {campaign_id} has no name, and calls are found by it only.")
        retry = campaign.retry
        return SubmissionHandle(
            kind="campaign",
            recipients=people,
            campaigns=[CampaignRef(id=campaign.id, name=campaign.name, recipients=people)],
            redial=Redial(
                (retry and retry.max) or 0,
                (retry and retry.delay) or 0,
                frozenset((retry and retry.retry_on) or ()),
            ).dump(),
            **({"agent_id": campaign.agent_id} if campaign.agent_id else {}),
        )

"""What the provider's sensors have in common: look, hand over, or wait in the triggerer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.exceptions import VolubileError, VolubileInputError, VolubileWaitFailed
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.tasks import UI_COLOR, UI_FGCOLOR, WAIT_FOR, check_choice, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
    from airflow_provider_volubile.waiting.ending import WaitEvent
    from airflow_provider_volubile.waiting.polling import Round
    from airflow_provider_volubile.waiting.watches import Watch


class WaitSensor(BaseSensorOperator):
    """Base of the sensors. Succeeds when everything is over, and returns a
    :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle` with ``counts``.

    :param volubile_conn_id: the :ref:`connection <connection>`.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param deferrable: wait in the triggerer and hold no worker. ``poke_interval`` is then the longest time between
        two looks, which all waits of the connection share.
    """

    ui_color = UI_COLOR
    ui_fgcolor = UI_FGCOLOR
    _looked: Round | None = None

    def __init__(
        self,
        *,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        wait_for: Literal["ended", "transcript"] = "ended",
        poke_interval: float = 30,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.volubile_conn_id = volubile_conn_id
        self.wait_for = wait_for
        self.deferrable = deferrable

    @cached_property
    def hook(self) -> VolubileHook:
        return VolubileHook(self.volubile_conn_id)

    @property
    def handle(self) -> SubmissionHandle:
        """What is waited for.

        :raises VolubileInputError: what the user gave is no handle and no id.
        """
        raise NotImplementedError

    def finds_more(self) -> bool:
        """Whether, with all over that was waited for, more belongs to it.

        :raises VolubileOutcomeGap: it certainly does, and cannot be found.
        """
        return False

    def watches(self) -> Sequence[Watch]:
        """What to watch for it."""
        raise NotImplementedError

    def trigger(self, deadline: datetime) -> WaitTrigger:
        """What waits without a worker."""
        raise NotImplementedError

    @cached_property
    def _watching(self) -> Sequence[Watch]:
        # Kept between the pokes of one process: what is settled need not be listed again.
        return self.watches()

    @fail_without_retry()
    def execute(self, context: Context) -> Any:
        check_choice("wait_for", self.wait_for, WAIT_FOR)
        if self.deferrable:
            self._defer()
        return super().execute(context)

    def _defer(self) -> NoReturn:
        from airflow_provider_volubile.triggers.wait_trigger import DEFERRAL_GRACE

        self.defer(
            trigger=self.trigger(datetime.now(UTC) + timedelta(seconds=self.timeout)),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + DEFERRAL_GRACE,
        )

    @fail_without_retry()
    def poke(self, context: Context) -> PokeReturnValue:
        event = self._look()
        return PokeReturnValue(is_done=event is not None, xcom_value=self._finish(event) if event else None)

    def _look(self) -> WaitEvent | None:
        """Look, and tell of the end if it has come."""
        from airflow_provider_volubile.waiting.ending import wait_event
        from airflow_provider_volubile.waiting.outcomes import NOTHING
        from airflow_provider_volubile.waiting.polling import FAILURE_BUDGET, Round, look

        while True:
            now, before = datetime.now(UTC), self._looked or Round()
            client = self.hook.client(background=True)
            self._looked = look(client, self._watching, now=now, before=before, patience=FAILURE_BUDGET)
            for watch in self._watching:
                if watch.error:
                    raise watch.error
            progress = sum((watch.progress() for watch in self._watching), NOTHING)
            self.log.info("%s", progress)
            if not all(watch.is_over(now) for watch in self._watching):
                # A cancellation is only certain after more looks, which the next poke might begin anew.
                pause = min(watch.soon for watch in self._watching)
                if pause == inf:
                    return None
                time.sleep(pause)
                continue
            if not self.finds_more():
                return wait_event("over", progress, self._watching)
            self._watching = self.watches()

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> SubmissionHandle:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        result = read_event(event)
        if result["status"] == "over" and self.finds_more():
            # The trigger may have waited for these as well: every process begins with what the user gave.
            result = self._look() or self._defer()
        return self._finish(result)

    def _finish(self, event: WaitEvent) -> SubmissionHandle:
        from airflow_provider_volubile.waiting.outcomes import final_counts

        if event["status"] == "timeout":
            raise AirflowSensorTimeout(f"After {self.timeout:g} s: {event['message']}")
        if event["status"] == "error":
            error = VolubileWaitFailed if event["final"] else VolubileError
            raise error(f"Waiting failed: {event['message']}")
        if event["missing"]:
            raise VolubileInputError(
                f"This account has no call {', '.join(event['missing'][:5])}"
                + (f" ({len(event['missing'])} such ids in all)." if len(event["missing"]) > 5 else ".")
            )
        recipients = self.handle.get("recipients", event["recipients"])
        counts = final_counts(
            recipients,
            settled=event["settled"],
            counts=event["counts"],
            cancelled=bool(event["cancelled"]),
        )
        return SubmissionHandle(**{**self.handle, "recipients": recipients, "counts": counts})

"""What the provider's sensors have in common: poll once at each poke, or wait in the triggerer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.exceptions import VolubileWaitTimeout
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.tasks import UI_COLOR, UI_FGCOLOR, WAIT_FOR, check_choice, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_volubile.waiting.ending import WaitEvent
    from airflow_provider_volubile.waiting.polling import Wait

STATE_KEY = "volubile_wait"
PIECE = 50_000


class StateOfTry:
    """What one try of a task keeps between its pokes, in the task state store.

    The store warns above 64 KB a value, so a long text is kept in pieces.
    """

    def __init__(self, context: Context) -> None:
        self._store: Any = context["task_state_store"]
        self._try = context["ti"].try_number

    def save(self, value: Any) -> None:
        text = json.dumps(value)
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces):
            self._store.set(f"{STATE_KEY}_{number}", piece)
        self._store.set(STATE_KEY, {"try": self._try, "pieces": len(pieces)})

    def load(self) -> Any:
        """What this try saved last; None at its first poke, or if a piece is gone."""
        head = self._store.get(STATE_KEY, {})
        if head.get("try") != self._try:
            return None
        pieces = [self._store.get(f"{STATE_KEY}_{number}") for number in range(head["pieces"])]
        try:
            return json.loads("".join(pieces))
        except (TypeError, ValueError):
            return None


class WaitSensor(BaseSensorOperator):
    """Base of the sensors. Succeeds when everything is over, and returns a
    :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle` with ``counts``.

    :param volubile_conn_id: the :ref:`connection <connection>`.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param deferrable: wait in the triggerer and hold no worker. ``poke_interval`` is then the longest time between
        two rounds of polling, which all waits of the connection share.
    """

    ui_color = UI_COLOR
    ui_fgcolor = UI_FGCOLOR

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

    @cached_property
    def _wait(self) -> Wait:
        # Kept between the pokes of one process: what is settled need not be listed again.
        from airflow_provider_volubile.waiting.polling import Wait

        return Wait.of(self.handle, wait_for=self.wait_for, poll_interval=self.poke_interval)

    @fail_without_retry()
    def execute(self, context: Context) -> Any:
        check_choice("wait_for", self.wait_for, WAIT_FOR)
        if self.deferrable:
            from airflow_provider_volubile.triggers.wait_trigger import defer_wait

            defer_wait(
                self,
                self.handle,
                volubile_conn_id=self.volubile_conn_id,
                deadline=datetime.now(UTC) + timedelta(seconds=self.timeout),
                poll_interval=self.poke_interval,
                wait_for=self.wait_for,
                # A sensor only looks: stopping it does not stop a campaign.
                on_kill_action="leave",
            )
        return super().execute(context)

    @fail_without_retry()
    def poke(self, context: Context) -> PokeReturnValue:
        from airflow_provider_volubile.waiting.poll_round import poll_once

        waiting = self._wait
        # Between the pokes of a rescheduled sensor its process ends.
        kept = StateOfTry(context) if self.reschedule else None
        if kept:
            waiting.restore(kept.load())
        poll_once(self.hook.client(background=True), waiting.watches, now=datetime.now(UTC))
        waiting.update(datetime.now(UTC))
        self.log.info("%s", waiting.progress)
        if waiting.error or waiting.is_over:
            return PokeReturnValue(is_done=True, xcom_value=self._finish(waiting.event()))
        if kept:
            kept.save(waiting.dump())
        return PokeReturnValue(is_done=False)

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> SubmissionHandle:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        return self._finish(read_event(event))

    def _finish(self, event: WaitEvent) -> SubmissionHandle:
        from airflow_provider_volubile.waiting.ending import finish_wait

        try:
            handle = finish_wait(self.handle, event, timeout=self.timeout)
        except VolubileWaitTimeout as error:
            raise AirflowSensorTimeout(str(error)) from error
        handle.pop("references", None)
        return handle

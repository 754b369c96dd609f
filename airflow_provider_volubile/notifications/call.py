"""A notifier that calls a person when a task or a Dag fails or succeeds."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.sdk import BaseNotifier, Context

from airflow_provider_volubile.exceptions import VolubileError, VolubileInputError
from airflow_provider_volubile.hooks.volubile import VolubileHook
from airflow_provider_volubile.masking import mask_phone
from airflow_provider_volubile.tasks import keep_plus

log = logging.getLogger(__name__)

# Notifiers of an unreachable account wait for minutes. Their own threads keep them from holding up the poll.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="volubile-notify")
# Airflow may report one event twice: the second time after it missed a heartbeat of the first reporter.
LOOK_BACK = timedelta(days=1)


class VolubileCallNotifier(BaseNotifier):
    """Let an agent call a person about a task or a Dag.

    Use it as ``on_failure_callback`` (or ``on_success_callback``, ``on_retry_callback``) of a Dag: it calls once for
    each failed run. As a callback of tasks it calls for each task, which may be hundreds of calls for a mapped task. It
    also works for deadline alerts.

    Airflow may report one event twice. The call's context carries a reference to the event (Dag, run, task, try). The
    notifier looks for the reference in the list of calls and does not call about an event twice. If it cannot read
    the list, it places the call. It does not repeat a request whose answer was lost, and does not wait until the
    person answers: use it beside other alerts, not alone.

    The notifier logs its errors, with numbers masked. They never change the state of the task.

    API facts: `Create call <https://docs.volubile.ai/api-reference/calls/create>`__.

    :param agent_id: an active outbound agent whose prompt says what happened. The prompt may use ``dag_id`` and
        ``run_id``; for a task ``task_id``, ``map_index`` and ``try_number``; for a Dag ``reason``. It gets no text of
        an error, which may hold secrets.
    :param phone: the number to call, in E.164 or, with ``default_region``, in national notation.
    :param call_context: more values for the prompt; they replace values above of the same name.
    :param default_region: ISO country of a national number.
    :param volubile_conn_id: the :ref:`connection <connection>`.
    """

    template_fields: Sequence[str] = ("agent_id", "phone", "call_context", "default_region", "volubile_conn_id")

    def __init__(
        self,
        *,
        agent_id: str,
        phone: str,
        call_context: Mapping[str, Any] | None = None,
        default_region: str | None = None,
        volubile_conn_id: str = VolubileHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.agent_id = agent_id
        self.phone = phone
        self.call_context = call_context
        self.default_region = default_region
        self.volubile_conn_id = volubile_conn_id

    def __call__(self, *args: Any) -> None:
        # A copy: rendering replaces the templates, and one notifier may serve many tasks.
        try:
            super(VolubileCallNotifier, copy(self)).__call__(*args)
        except VolubileError:
            pass  # logged by Airflow's base class
        except Exception:
            log.exception("Nobody was called: the notifier failed.")

    def notify(self, context: Context) -> None:
        """Call the person, unless a call about this event exists.

        :raises VolubileError: no call was placed, or it is not known whether one was.
        """
        from airflow_provider_volubile.calling.kinds import marked
        from airflow_provider_volubile.calling.recipients import read_recipients
        from airflow_provider_volubile.calling.sending_parts import SEND_WITHIN
        from airflow_provider_volubile.waiting.find_calls import find_reference

        event = _event(context)
        values = {name: value for name, value in event.items() if name != "deadline"} | dict(self.call_context or {})
        people = read_recipients([{"phone": self.phone, "context": values}], default_region=self.default_region)
        if not people.accepted:
            raise VolubileInputError(f"phone ({people.rejected[0].phone}) {people.rejected[0].reason}.")
        person = people.accepted[0]
        hook = VolubileHook(self.volubile_conn_id)
        client, submission = hook.client(), _reference(event)
        about = ", ".join(f"{name} {value}" for name, value in event.items())
        try:
            since = datetime.now(UTC) - LOOK_BACK
            if find_reference(client, f"{submission}-", since=since, agent_id=self.agent_id, phone=person.phone):
                log.info("%s was called about %s before.", mask_phone(person.phone), about)
                return
        except VolubileError as error:
            log.warning("It is not known whether somebody was called about %s before: %s", about, error)
        (recipient,) = marked([person], f"{submission}-1")
        client.create_call(self.agent_id, recipient, not_after=time.monotonic() + SEND_WITHIN)
        log.info("Agent %s calls %s about %s.", self.agent_id, mask_phone(person.phone), about)

    async def async_notify(self, context: Context) -> None:
        """Call the person from a deadline alert, outside the triggerer's event loop."""
        await asyncio.get_running_loop().run_in_executor(_threads, partial(self.notify, context))

    def _render(self, template: Any, context: Context, dag: Any = None) -> Any:
        return keep_plus(super()._render(template, context, dag), template, context)


def _event(context: Any) -> dict[str, Any]:
    """Return what identifies an event. It is the same for each process that reports the event."""
    ti = context.get("ti")
    if ti is not None and "reason" not in context:
        event = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "try_number": ti.try_number}
        is_mapped = ti.map_index is not None and ti.map_index >= 0
        return event | ({"map_index": ti.map_index} if is_mapped else {})
    run = context.get("dag_run") or {}
    if not isinstance(run, Mapping):
        run = {"dag_id": run.dag_id, "run_id": run.run_id}
    event = {
        "dag_id": run.get("dag_id") or getattr(context.get("dag"), "dag_id", None),
        "run_id": run.get("run_id") or run.get("dag_run_id") or context.get("run_id"),
        "reason": context.get("reason"),
        # A cleared run that fails again is another event: its last task then has another try.
        "try_number": ti and ti.try_number,
        "deadline": (context.get("deadline") or {}).get("id"),
    }
    return {name: value for name, value in event.items() if value is not None}


def _reference(event: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(event, sort_keys=True, default=str).encode()).hexdigest()[:10]

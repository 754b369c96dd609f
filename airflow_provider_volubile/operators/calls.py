"""Calls as tasks: one, or up to ten thousand; and the transcript of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, cast

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_volubile.calling.handles import SubmissionHandle
from airflow_provider_volubile.exceptions import VolubileInputError, VolubileNotFound
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.operators.submission import DEFERRABLE, OnUnknown, SubmissionOperator, WaitFor
from airflow_provider_volubile.tasks import check_choice, fail_without_retry, unwrap

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.kinds import Calls, SingleCalls
    from airflow_provider_volubile.waiting.ending import WaitEvent

HOUR = 3600.0
# XCom is stored in the metadata database and read whole by everyone who looks at the task.
MAX_XCOM_BYTES = 256 * 1024


class VolubileBulkCallsOperator(SubmissionOperator):
    """Have an agent call up to 10,000 people at once, and wait until each call has ended.

    For more people, map the operator over lists of them. Nobody is called twice by a retry: see :doc:`/reliability`.
    Returns a :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle`. People whose number the service
    refuses are counted as rejected when calls are sent one by one; a refused bulk request fails the task.

    :param submit_as: ``bulk`` sends up to 1,000 people in one request, to a route of which only the address is
        documented; ``single`` sends one documented request per person
        (`Create call <https://docs.volubile.ai/api-reference/calls/create>`__), at most 100 in 15 s.

    See :class:`~airflow_provider_volubile.operators.submission.SubmissionOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("submit_as", *SubmissionOperator.template_fields)

    def __init__(
        self,
        *,
        submit_as: Literal["bulk", "single"] = "bulk",
        agent_id: str,
        recipients: Any,
        phone_field: str = "phone",
        context_fields: Sequence[str] | None = None,
        default_region: str | None = None,
        strict_numbers: bool = False,
        wait_for_completion: bool = True,
        wait_for: WaitFor = "ended",
        poll_interval: float = 30,
        timeout: float = 6 * HOUR,
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
        self.submit_as = submit_as

    def make_kind(self) -> Calls:
        from airflow_provider_volubile.calling.kinds import BulkCalls, SingleCalls

        check_choice("submit_as", self.submit_as, ("bulk", "single"))
        kind = SingleCalls if self.submit_as == "single" else BulkCalls
        return kind(kind="bulk", agent_id=self.agent_id)


class VolubileCreateCallOperator(SubmissionOperator):
    """Have an agent call one person, and wait until the call has ended.

    Nobody is called twice by a retry: see :doc:`/reliability`. Returns a
    :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle`.

    API facts: `Create call <https://docs.volubile.ai/api-reference/calls/create>`__.

    :param phone: the number, in E.164 or, with ``default_region``, as people of that country write it.
    :param call_context: values for the placeholders of the agent's prompt.

    See :class:`~airflow_provider_volubile.operators.submission.SubmissionOperator` for the other parameters.
    """

    template_fields: Sequence[str] = (
        "agent_id",
        "phone",
        "call_context",
        "default_region",
        "on_unknown",
        "outcomes_path",
        "volubile_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"call_context": "json"}
    personal_fields: Sequence[str] = ("phone", "call_context")

    def __init__(
        self,
        *,
        phone: str,
        call_context: Mapping[str, Any] | None = None,
        agent_id: str,
        default_region: str | None = None,
        strict_numbers: bool = False,
        wait_for_completion: bool = True,
        wait_for: WaitFor = "ended",
        poll_interval: float = 30,
        timeout: float = HOUR,
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
            recipients=None,
            **kwargs,
        )
        self.phone = phone
        self.call_context = call_context

    def make_kind(self) -> SingleCalls:
        from airflow_provider_volubile.calling.kinds import SingleCalls

        return SingleCalls(kind="call", agent_id=self.agent_id)

    def rows(self) -> list[dict[str, Any]]:
        context = unwrap(self.call_context)
        if not isinstance(context, Mapping | None):
            raise VolubileInputError(
                f"call_context: got a {type(context).__name__} where an object is expected, such as "
                "{'firstName': 'Lucie'}; hand over the task's output itself (call_context=task.output), or set "
                "render_template_as_native_obj=True on the Dag."
            )
        return [{"phone": unwrap(self.phone), "context": context or {}}]


class TranscriptEntry(TypedDict):
    """One event of what :class:`VolubileGetTranscriptOperator` returns, as the API names things.

    :ivar action: such as ``RING``, ``ANSWER``, ``HUMAN_SPEAK``, ``AGENT_SPEAK``, ``HANG_UP``.
    :ivar time: ISO 8601 in UTC.
    :ivar actor: ``HUMAN``, ``AGENT``, ``ANSWERING_MACHINE`` or ``UNKNOWN``.
    :ivar message: what was said, where somebody spoke.
    """

    action: str
    time: str | None
    actor: str | None
    message: str | None


class VolubileGetTranscriptOperator(VolubileOperator):
    """Return the transcript of one call through XCom; it is waited for if it is not there yet.

    A call in which nobody was heard (``NO_ANSWER``, ``REJECTED``…) has none: the task is then skipped. Returns a list
    of :class:`TranscriptEntry`.

    For more than a few calls there is
    :class:`~airflow_provider_volubile.operators.exports.VolubileExportTranscriptsOperator`: XCom is stored in the
    metadata database, and what people said is readable there.

    API facts: `Get transcript <https://docs.volubile.ai/api-reference/calls/get-transcript>`__.

    :param call_id: the call.
    :param timeout: how long to wait for the call to end and its transcript to appear, in seconds.
    :param poll_interval: the longest time between two polls, in seconds.
    :param deferrable: wait in the triggerer and hold no worker.
    """

    template_fields: Sequence[str] = ("call_id", "volubile_conn_id")

    def __init__(
        self,
        *,
        call_id: str,
        timeout: float = HOUR,
        poll_interval: float = 30,
        deferrable: bool = DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.call_id = call_id
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable

    @fail_without_retry()
    def execute(self, context: Context) -> list[TranscriptEntry]:
        from airflow_provider_volubile.api import wire
        from airflow_provider_volubile.waiting.polling import wait

        client = self.hook.client()
        with suppress(VolubileNotFound):
            transcript = self._fetch(client)
            if wire.is_whole_transcript(entry["action"] for entry in transcript):
                return transcript
        self.log.info("Call %s has no whole transcript yet.", self.call_id)
        handle = SubmissionHandle(call_ids=[self.call_id])
        how: dict[str, Any] = {
            "wait_for": "transcript",
            "deadline": datetime.now(UTC) + timedelta(seconds=self.timeout),
            "poll_interval": self.poll_interval,
        }
        if self.deferrable:
            from airflow_provider_volubile.triggers.wait_trigger import defer_wait

            defer_wait(self, handle, volubile_conn_id=self.volubile_conn_id, **how)
        return self._finish(wait(client, handle, report=lambda progress: self.log.info("%s", progress), **how))

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> list[TranscriptEntry]:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        return self._finish(read_event(event))

    def _finish(self, event: WaitEvent) -> list[TranscriptEntry]:
        from airflow_provider_volubile.api import wire
        from airflow_provider_volubile.waiting.ending import finish_wait

        handle = finish_wait(SubmissionHandle(call_ids=[self.call_id]), event, timeout=self.timeout)
        with suppress(VolubileNotFound):
            if transcript := self._fetch(self.hook.client()):
                return transcript
        status = next(iter(handle["counts"]), "unknown")
        if not wire.may_have_transcript(status):
            raise AirflowSkipException(
                f"Call {self.call_id} ended as {status}: nobody was heard, there is no transcript."
            )
        raise VolubileNotFound(f"Call {self.call_id} ended as {status}, but its transcript did not appear in time.")

    def _fetch(self, client: VolubileClient) -> list[TranscriptEntry]:
        events = [event.model_dump(mode="json", by_alias=True) for event in client.get_transcript(self.call_id)]
        size = len(json.dumps(events))
        if size > MAX_XCOM_BYTES:
            raise VolubileInputError(
                f"The transcript of call {self.call_id} has {size} bytes; XCom takes at most {MAX_XCOM_BYTES} here. "
                "Write it to a file with VolubileExportTranscriptsOperator."
            )
        return cast("list[TranscriptEntry]", events)
